"use strict";
// The first screen: fetched once a problem, then moved along lambda without asking anybody.
window.tightframeScene = (() => {
  const at = id => document.getElementById(id);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const OWN = ["weight_decay", "feature_decay", "view", "margin", "feature_decay_of"];
  const WORST_FIRST = ["vanished", "lost", "merged", "distinct"];
  const SIGNS = {distinct: "●", merged: "◆", lost: "▶", vanished: "✕"};
  const FEW_ROWS = 20, FOLDED = 10, PLAY_SECONDS = 9, SILENCE = 350;

  let scene = null, key = null, decay = null, asked = null, values = {}, span = null;
  let rows = [], order = "", whole = false, playing = 0, held = false, waiting = 0, written = null, moved = false;

  const short = (value, digits = 3) => String(Number(value.toPrecision(digits)));
  const index = (list, value, start) => {
    let low = 0, high = list.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (start(list[middle]) <= value) low = middle; else high = middle - 1;
    }
    return low;
  };

  // -- what is asked for --------------------------------------------------------------------------

  // Lambda: the geometric mean of all layers' decays and the features'.
  function lambda() {
    const layers = String(values.weight_decay).split(",").map(Number);
    const depth = Number(values.depth) || 1;
    const all = layers.length === 1 ? Array(depth).fill(layers[0]) : layers;
    all.push(Number(values.feature_decay));
    return Math.exp(all.reduce((sum, one) => sum + Math.log(one), 0) / all.length);
  }

  function follow(names, given, file) {
    if (!given[names.indexOf("counts")]) return;  // before the link is read
    values = Object.fromEntries(names.map((name, i) => [name, given[i] ?? ""]));
    const problem = JSON.stringify([file, names.map(name => OWN.includes(name) ? "" : values[name])]);
    const wanted = lambda(), known = problem === key && scene && !at("scene").classList.contains("stale");
    if (known && written !== null && Math.abs(Math.log(wanted / written)) < 1e-6) return;
    written = null;
    if (known && (scene.final ? wanted >= scene.low && wanted <= scene.high : scene.tree)) {
      stop();
      move(Math.min(Math.max(wanted, scene.low), scene.high));
      return;
    }
    if (problem !== key) whole = false;
    key = problem;
    stop();
    ask(new URLSearchParams(values).toString(), file || null);
  }

  async function ask(query, file) {
    moved = false;
    asked?.abort();
    const own = asked = new AbortController();
    const late = setTimeout(() => at("progress").textContent = "solving…", 300);
    try {
      const reply = await fetch("/scene", {method: "POST", signal: own.signal,
        headers: {"Content-Type": "application/json"}, body: JSON.stringify({query, file})});
      if (!reply.ok) throw new Error(`the server says ${reply.status}`);
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const {done, value} = await reader.read();
        if (done) break;
        clearTimeout(late);
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) if (own === asked) take(JSON.parse(line));
      }
    } catch (error) {
      if (error.name !== "AbortError" && own === asked) say(`No answer: ${error.message}.`);
    } finally {
      clearTimeout(late);
    }
  }

  const say = text => at("progress").textContent = text;

  function take(line) {
    if (line.total) {
      say(`Exact places of all changes: ${Math.round(100 * line.done / line.total)} %`);
    } else if (line.message) {
      // The same line stands on top, by the field that it names.
      say(line.message.startsWith("This should") ? line.message : "");
      at("scene").classList.add("stale");
    } else draw(line);
  }

  // -- drawing ------------------------------------------------------------------------------------

  function draw(found) {
    scene = found;
    span = null;
    at("scene").classList.remove("stale");
    at("wheel-place").innerHTML = found.wheel;
    at("tree-place").innerHTML = found.tree;
    at("play").hidden = !found.tree;
    say(found.note || (found.final ? "" : found.tree ? "Exact places of all changes follow." :
      "The tree of all λ follows."));
    window.tightframe.connect(at("scene"));
    const slider = at("scene").querySelector(".tf-decay");
    if (slider) {
      slider.addEventListener("pointerdown", () => { held = true; });
      for (const kind of ["pointerup", "pointercancel"]) {
        slider.addEventListener(kind, () => { held = false; settle(); });
      }
      slider.addEventListener("input", stop);
    }
    at("wheel").addEventListener("pointerover", tell);
    makeTable();
    // Where the slider was moved to while the rest was solved, or where the controls are.
    const to = moved ? decay : lambda();
    if (found.tree && (to < found.low || to > found.high)) {
      say(`λ = ${short(to)} of the controls lies ${to < found.low ? "left" : "right"} of the axis: here is its end.`);
    }
    move(found.tree ? Math.min(Math.max(to, found.low), found.high) : found.decays[0]);
  }

  // What is pointed at, as the table has it.
  function tell(event) {
    const mark = event.target.closest("[data-i]");
    const row = mark && rows.find(one => one.data.mark === Number(mark.dataset.i));
    const tip = at("wheel").querySelector(".tf-tip");
    if (!row || tip.hidden || rows.length !== at("wheel").querySelectorAll(".tf-marks use").length) return;
    const now = row.now, more = tip.textContent.split("\n").filter(line => line.startsWith("also"));
    const head = /^\d+$/.test(row.data.name) ? `class ${row.data.name}` : row.data.name;
    tip.textContent = [`${head}: ${row.data.samples} samples`,
      now.state + (now.taker ? `, taken for ${now.taker}` : ""),
      `margin ${now.margin}, own share ${now.own}`, ...more].join("\n");
  }

  // -- moving -------------------------------------------------------------------------------------

  function move(to) {
    decay = to;
    const now = scene.spans[index(scene.spans, to, one => one.from)];
    at("decay").textContent = short(to);
    if (now !== span || now.text.includes("{fold}")) {
      // Of a network that is laid over it may be untrue.
      at("sentence").textContent = (scene.measured ? "Predicted: " : "")
        + now.text.replace("{fold}", short(now.next / to, now.next / to < 2 ? 3 : 2));
    }
    const digits = short(now.next || 0) === short(to) ? 6 : 3; // or the change seems to be here
    const next = now.next ? `next change at ${short(now.next, digits)}` : scene.tree ? "no change above" : "";
    if (at("next").textContent !== next) at("next").textContent = next;
    if (now !== span) {
      span = now;
      at("state-counts").replaceChildren(...Object.entries(now.counts).map(([state, number]) => {
        const part = document.createElement("span");
        part.style.color = `var(--tf-${state})`;
        part.innerHTML = `<b>${number}</b> ${state} `;
        return part;
      }));
      if (scene.measured) at("state-counts").prepend("predicted:");
    }
    const tree = at("tree"), wheel = at("wheel");
    if (tree && tree.decay !== to) tree.seek(to);
    if (scene.decays.length > 1) wheel.seekValue(to, true);
    fillTable();
  }

  function stop() {
    if (!playing) return;
    cancelAnimationFrame(playing);
    playing = 0;
    at("play").textContent = "▶ Raise λ";
    settle();
  }

  function play() {
    if (playing) return stop();
    if (!scene?.tree) return;
    moved = true;
    const first = decay >= scene.high * .999 ? scene.low : decay;
    if (still.matches) {  // from change to change, without motion
      const later = scene.spans.find(one => one.from > first * 1.000001);
      move(later ? later.from : scene.high);
      return settle();
    }
    const reach = Math.log(scene.high / scene.low), began = performance.now();
    at("play").textContent = "❚❚ Pause";
    const step = time => {
      const share = Math.max(time - began, 0) / 1000 / PLAY_SECONDS;
      const to = Math.min(first * Math.exp(reach * share), scene.high);
      move(to);
      if (to < scene.high) playing = requestAnimationFrame(step); else stop();
    };
    playing = requestAnimationFrame(step);
  }

  // The controls follow when the slider rests: both decays keep their ratio.
  function settle() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (held || playing || !scene) return;
      moved = false;
      const times = decay / lambda();
      if (!(times > 0) || Math.abs(Math.log(times)) < 1e-6) return;
      // A little beyond a threshold, where rounding cannot put it below.
      const exact = scene.spans.some(one => one.from === decay);
      const scaled = text => String(text).split(",").map(one =>
        short(Number(one) * times * (exact ? 1 + 1e-7 : 1), exact ? 9 : 4)).join(",");
      for (const name of ["weight_decay", "feature_decay"]) {
        values[name] = scaled(values[name]);
        window.dash_clientside.set_props(name, {value: values[name]});
      }
      written = lambda();
    }, SILENCE);
  }

  document.addEventListener("tf-decay", event => {
    if (!scene || !at("scene").contains(event.target)) return;
    moved = true;
    move(event.detail.decay);
    settle();
  });

  // -- table --------------------------------------------------------------------------------------

  const HEADS = [["class"], ["samples", "n"], ["state"], ["margin to the nearest", "n"],
    ["own share", "n"], ["taken for"], ["apart below λ", "n"], ["safety", "n"]];

  function makeTable() {
    const table = document.createElement("table"), head = table.createTHead().insertRow();
    for (const [text, kind] of HEADS) {
      const cell = document.createElement("th");
      Object.assign(cell, {textContent: text, scope: "col", className: kind || ""});
      head.append(cell);
    }
    const body = table.createTBody();
    rows = scene.rows.map(data => {
      const line = document.createElement("tr"), cells = HEADS.map(([, kind], i) => {
        const cell = document.createElement(i ? "td" : "th");
        cell.className = kind || "";
        line.append(cell);
        return cell;
      });
      cells[0].scope = "row";
      cells[0].textContent = data.name;
      cells[1].textContent = data.samples;
      cells[6].textContent = data.until ? short(data.until) : "";
      if (data.mark !== null) line.addEventListener("click", () => at("wheel").choose(data.mark));
      return {data, line, cells, now: {}};
    });
    order = "";
    at("class-table").replaceChildren(table);
    at("class-table").body = body;
    at("all-classes").hidden = rows.length <= FEW_ROWS;
  }

  function fillTable() {
    const i = index(scene.decays, decay, one => one), j = Math.min(i + 1, scene.decays.length - 1);
    const reach = Math.log(scene.decays[j] / scene.decays[i]);
    const t = reach > 0 ? Math.min(Math.max(Math.log(decay / scene.decays[i]) / reach, 0), 1) : 0;
    const value = (list, k) => list[i][k] === null ? null : list[i][k] + (list[j][k] - list[i][k]) * t;
    rows.forEach((row, k) => {
      const parts = row.data.parts;
      row.now = {state: parts[index(parts, decay, one => one[0])][1], number: value(scene.margin, k),
        own: (value(scene.own, k) ?? 0).toFixed(2), taker: scene.taker[i][k], k};
      if (row.now.state === "merged" || row.now.state === "vanished") row.now.number = Math.min(row.now.number, 0);
      row.now.margin = (Math.abs(row.now.number) < .005 ? 0 : row.now.number).toFixed(2);
    });
    const sorted = [...rows].sort((a, b) => WORST_FIRST.indexOf(a.now.state) - WORST_FIRST.indexOf(b.now.state)
      || a.now.number - b.now.number || a.now.k - b.now.k);
    const shown = whole || rows.length <= FEW_ROWS ? sorted : sorted.slice(0, FOLDED);
    const names = shown.map(row => row.now.k).join();
    if (names !== order) {
      order = names;
      at("class-table").body.replaceChildren(...shown.map(row => row.line));
    }
    for (const {data, cells, now} of shown) {
      if (cells[2].dataset.state !== now.state) {
        cells[2].dataset.state = now.state;
        cells[2].innerHTML = `<span class="state" style="color:var(--tf-${now.state})"><span aria-hidden="true">${SIGNS[now.state]}\ufe0e</span> ${now.state}</span>`;
      }
      const texts = [now.margin, now.own, now.state === "lost" ? now.taker : "", null,
        data.until ? `${(data.until / decay).toFixed(2)}×` : ""];
      texts.forEach((text, n) => {
        if (text !== null && cells[n + 3].textContent !== text) cells[n + 3].textContent = text;
      });
    }
  }

  document.addEventListener("tf-choose", event => {
    for (const {data, line} of rows) line.classList.toggle("chosen", data.mark === event.detail.index);
  });

  // -- buttons ------------------------------------------------------------------------------------

  document.addEventListener("click", event => {
    if (event.target.id === "play") play();
    if (event.target.id === "all-classes") {
      whole = !whole;
      event.target.textContent = whole ? `The ${FOLDED} worst` : "Show all";
      fillTable();
    }
    const preset = event.target.closest("a.preset");
    if (preset && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      for (const [name, value] of Object.entries(JSON.parse(preset.dataset.state))) {
        if (name !== "view") window.dash_clientside.set_props(name, {value});
      }
      window.dash_clientside.set_props("file", {data: null});
    }
  });

  // Which preset the controls are at, whatever lambda.
  function mark() {
    for (const one of document.querySelectorAll("a.preset")) {
      const own = JSON.parse(one.dataset.state);
      const same = Object.keys(own).every(name => OWN.includes(name) || String(values[name] ?? "") === own[name]);
      if (same) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
    }
  }

  return {
    follow: (...given) => {
      const file = given.pop(), names = JSON.parse(at("scene").dataset.controls);
      follow(names, given, file);
      mark();
    },
    get moved() { return {decay, scene, span}; },
    move: to => { move(to); },
  };
})();
