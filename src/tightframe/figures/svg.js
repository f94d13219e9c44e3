"use strict";
// Moves wheels and merge trees that are drawn already: playing, sliders, what is pointed at.
window.tightframe = window.tightframe || (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const between = (a, b, t) => a + (b - a) * t;
  const set = (element, values) => {
    for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  };
  const make = (parent, kind, values) => {
    const element = document.createElementNS(SVG, kind);
    set(element, values);
    parent.append(element);
    return element;
  };
  const show = (element, state, x, y, radius) => {
    element.style.display = state ? "" : "none";
    if (state) set(element, {class: state, href: `#tf-${state}`});
    set(element, {transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${radius})`});
  };

  function wheel(figure, data) {
    const svg = figure.querySelector("svg"), tip = figure.querySelector(".tf-tip");
    const part = name => figure.querySelector(`.tf-${name}`);
    const all = query => {
      const found = [];
      for (const one of figure.querySelectorAll(query)) found[one.dataset.i] = one;
      return found;
    };
    const marks = all(".tf-marks use"), lines = all(".tf-spokes line");
    const ends = all(".tf-spokes circle"), rings = all(".tf-rings circle");
    const slider = figure.querySelector(".tf-player input");
    const output = figure.querySelector(".tf-player output");
    const last = data.moments.length - 1;
    let now = last, pointed = -1, chosen = -1;

    // Between two moments places are interpolated; states are those of the earlier one.
    function seek(position) {
      now = Math.min(Math.max(position, 0), last);
      const i = Math.floor(now), t = now - i;
      const a = data.moments[i], b = data.moments[Math.min(i + 1, last)];
      a.places.forEach(([x, y], k) => {
        const u = between(x, b.places[k][0], t), v = between(y, b.places[k][1], t);
        const state = data.states[a.states[k]] || "";
        show(marks[k], state, u, v, data.radii[k]);
        if (lines[k]) {
          set(lines[k], {x2: u.toFixed(1), y2: v.toFixed(1), class: state});
          set(ends[k], {class: state});
        }
        if (rings[k] && a.rings) {
          const ring = b.rings || a.rings;
          const p = between(a.rings[k][0], ring[k][0], t), q = between(a.rings[k][1], ring[k][1], t);
          set(rings[k], {transform: `translate(${p.toFixed(1)} ${q.toFixed(1)})`});
        }
      });
      const cross = [0, 1].map(k => between(a.cross[k], b.cross[k], t).toFixed(1));
      set(part("cross"), {transform: `translate(${cross})`});
      const nearest = t > .5 ? b : a;
      part("callouts").replaceChildren();
      for (const [x, y, text, state] of a.callouts) {
        make(part("callouts"), "text", {x, y, class: data.states[state]}).textContent = text;
      }
      if (output) output.textContent = nearest.label;
      if (slider && document.activeElement !== slider) slider.value = now;
      if (pointed >= 0) point(pointed);
      figure.dispatchEvent(new CustomEvent("tf-moment", {bubbles: true,
        detail: {position: now, label: nearest.label, value: nearest.value}}));
    }

    function at(value, log) {
      const values = data.moments.map(moment => moment.value);
      let i = values.findIndex(one => one > value);
      i = i < 0 ? last : Math.max(i - 1, 0);
      const f = log ? Math.log : x => x, reach = f(values[Math.min(i + 1, last)]) - f(values[i]);
      seek(i + (reach > 0 ? Math.max((f(value) - f(values[i])) / reach, 0) : 0));
    }

    function point(k) {
      pointed = k;
      const moment = data.moments[Math.floor(now)], mark = marks[k].getBoundingClientRect();
      part("takers").replaceChildren();
      const state = data.states[moment.states[k]] || "";
      tip.hidden = !state;
      if (!state) return;
      const place = marks[k].transform.baseVal[0].matrix;
      const taken = [];
      for (const [home, share] of moment.takers[k] || []) {
        taken.push(`${data.names[home]} (${(100 * share).toFixed(0)} %)`);
        make(part("takers"), "line", {x1: place.e, y1: place.f, x2: data.homes[home][0],
          y2: data.homes[home][1], "stroke-width": (1 + 5 * share).toFixed(1)});
      }
      tip.textContent = (moment.tips[k] || `${data.names[k]}\n${state}`) + (taken.length ? `\nalso predicted: ${taken.join(", ")}` : "");
      const whole = figure.getBoundingClientRect();
      const left = mark.right - whole.left + 8;
      tip.style.left = `${Math.max(Math.min(left, whole.width - tip.offsetWidth), 0)}px`;
      tip.style.top = `${mark.bottom - whole.top + 4}px`;
    }

    function leave() {
      pointed = -1;
      tip.hidden = true;
      part("takers").replaceChildren();
    }

    function choose(k) {
      chosen = k === chosen ? -1 : k;
      for (const one of figure.querySelectorAll("[data-i]")) {
        one.toggleAttribute("data-dim", chosen >= 0 && Number(one.dataset.i) !== chosen);
      }
      figure.dispatchEvent(new CustomEvent("tf-choose", {bubbles: true,
        detail: {index: chosen, name: chosen < 0 ? null : data.names[chosen]}}));
    }

    const which = event => {
      const found = event.target.closest("[data-i]");
      return found ? Number(found.dataset.i) : -1;
    };
    svg.addEventListener("pointerover", event => which(event) < 0 ? leave() : point(which(event)));
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("click", event => { if (which(event) >= 0) choose(which(event)); });

    const button = figure.querySelector(".tf-player button");
    let playing = 0;
    function stop() {
      cancelAnimationFrame(playing);
      playing = 0;
      button.textContent = "▶ Play";
    }
    function play() {
      if (playing) return stop();
      if (still.matches) return seek(now >= last ? 0 : Math.floor(now) + 1);
      const start = performance.now(), from = now >= last ? 0 : now;
      button.textContent = "❚❚ Pause";
      const step = time => {
        const position = from + Math.max(time - start, 0) / 7000 * last;
        seek(position);
        if (position < last) playing = requestAnimationFrame(step); else stop();
      };
      playing = requestAnimationFrame(step);
    }
    if (button) {
      button.addEventListener("click", play);
      slider.addEventListener("input", () => { if (playing) stop(); seek(Number(slider.value)); });
      output.textContent = data.moments[last].label;
    }
    Object.assign(figure, {seek, seekValue: at, choose});
  }

  function tree(figure, data) {
    const here = figure.querySelector(".tf-here"), slider = figure.querySelector(".tf-decay");
    const reach = Math.log(data.high / data.low);
    const line = make(here, "path", {class: "tf-now"});
    const marks = data.lanes.map(() => make(here, "use", {}));

    // The S-curve C .5,0 .5,1 1,1.
    function curve(place) {
      let low = 0, high = 1;
      for (let n = 0; n < 24; n++) {
        const t = (low + high) / 2;
        if (1.5 * t * (1 - t) + t ** 3 < place) low = t; else high = t;
      }
      return low * low * (3 - 2 * low);
    }
    function height(lane, x) {
      for (let n = lane.runs.length - 1; n >= 0; n--) {
        const [state, xs, ys] = lane.runs[n];
        if (x < xs[0] - .01 || x > xs[xs.length - 1]) continue;
        let i = xs.findIndex(one => one > x);
        if (i < 0) i = xs.length - 1;
        if (i === 0) i = 1;
        const t = Math.min(Math.max((x - xs[i - 1]) / (xs[i] - xs[i - 1]), 0), 1);
        return [data.states[state], between(ys[i - 1], ys[i], curve(t))];
      }
      return ["", 0];
    }
    function seek(decay) {
      const x = Math.min(Math.max(Math.log(decay / data.low) / reach, 0), 1) * data.width;
      set(line, {d: `M${x.toFixed(1)} -4V${data.height}`});
      data.lanes.forEach((lane, k) => {
        const [state, y] = height(lane, x);
        show(marks[k], data.lanes.length <= 30 ? state : "", x, y, lane.radius);
      });
      if (document.activeElement !== slider) slider.value = 1000 * x / data.width;
      figure.decay = decay;
    }
    // Near a threshold the slider stands exactly at it.
    function snapped(x) {
      const places = data.changes.map(value => [value, Math.log(value / data.low) / reach * data.width]);
      const near = places.find(([, place]) => Math.abs(place - x) <= 4);
      return near ? near[0] : data.low * Math.exp(reach * x / data.width);
    }
    function follow() {
      const wheels = figure.closest(".tf-together")?.querySelectorAll(".tf-wheel") || [];
      for (const one of wheels) one.seekValue(figure.decay, true);
    }
    slider.addEventListener("input", () => {
      seek(snapped(Number(slider.value) / 1000 * data.width));
      figure.dispatchEvent(new CustomEvent("tf-decay", {bubbles: true, detail: {decay: figure.decay}}));
      follow();
    });
    if (data.now) {
      seek(data.now);
      follow();
    }
    figure.seek = seek;
  }

  function connect(root = document) {
    // Wheels first: trees move them.
    for (const [kind, move] of [["wheel", wheel], ["tree", tree]]) {
      for (const figure of root.querySelectorAll(`.tf-${kind}:not([data-connected])`)) {
        figure.dataset.connected = "";
        move(figure, JSON.parse(figure.querySelector("script").textContent));
      }
    }
  }
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => connect());
  } else connect();
  return {connect};
})();
