"use strict";
// One player for all wheels of a report; the table follows the chosen wheel and the epoch.
(() => {
  const hero = document.getElementById("hero");
  const data = JSON.parse(document.getElementById("hero-data").textContent);
  const by = id => document.getElementById(id);
  const cards = [...hero.querySelectorAll(".wheel-card")];
  const wheels = cards.map(card => card.querySelector(".tf-wheel"));
  const body = by("hero-table").tBodies[0], rows = [];
  for (const row of body.rows) rows[row.dataset.row] = row;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const last = data.epochs.length - 1;
  let now = last, setting = data.chosen, written = "", all = false, playing = 0, pick = -1;
  // Wheels that wait to be chosen have the same homes: of those that are seen there is a copy.
  const pattern = wheels.find(wheel => wheel.querySelector("svg"));
  for (const [i, wheel] of wheels.entries()) {
    if (wheel.querySelector("svg")) continue;
    const copy = pattern.querySelector("svg").cloneNode(true);
    copy.setAttribute("aria-label", data.settings[i].label);
    wheel.prepend(copy);
  }
  tightframe.connect(hero);

  function fixed(value, digits) {
    return value === null ? "–" : (Number(value.toFixed(digits)) + 0).toFixed(digits);
  }

  // Of a measurement that is between two, the earlier one, as for the wheels' states.
  function moment(own, epoch) {
    const next = own.epochs.findIndex(one => one > epoch + 1e-6);
    return next < 0 ? own.epochs.length - 1 : Math.max(next - 1, 0);
  }

  function write(epoch, sorted) {
    const own = data.settings[setting], i = moment(own, epoch);
    const key = `${setting} ${i} ${sorted} ${all}`;
    if (key === written) return;
    written = key;
    by("hero-label").textContent = own.label;
    by("hero-epoch").textContent = own.epochs[i];
    rows.forEach((row, k) => {
      const state = data.states[own.states[i][k]] || "", cell = row.cells;
      cell[2].className = `state ${state}`;
      cell[2].querySelector("svg").setAttribute("class", `tf-sign ${state}`);
      cell[2].querySelector("use").setAttribute("href", `#tf-${state}`);
      cell[2].lastChild.textContent = ` ${state}`;
      cell[3].firstElementChild.textContent = fixed(own.margins[i][k], 2);
      cell[3].lastElementChild.textContent = `(${fixed(own.predicted[k], 2)})`;
      const bar = row.querySelector(".bar > i");
      if (bar) {
        const share = own.shares ? own.shares[i][k] : null;
        bar.style.width = `${100 * (share || 0)}%`;
        cell[4].className = `n share ${state}`;
        cell[4].lastElementChild.textContent = share === null ? "–" : `${Math.floor(100 * share + .5)} %`;
      }
      const taken = row.querySelector("[data-taken]");
      if (taken) {
        taken.replaceChildren();
        if (!own.taken[k]) return taken.append("–");
        const [name, share] = ["b", "small"].map(kind => document.createElement(kind));
        [name.textContent, share.textContent] = own.taken[k];
        taken.append(name, " ", share);
      }
    });
    if (!sorted) return;
    const rank = k => {
      const share = own.shares ? own.shares[i][k] : null;
      return share === null ? 2 : share;
    };
    const order = rows.map((_, k) => k).sort((a, b) =>
      rank(a) - rank(b) || (own.margins[i][a] ?? 0) - (own.margins[i][b] ?? 0) || a - b);
    order.forEach((k, place) => {
      rows[k].hidden = !all && place >= data.rows;
      body.append(rows[k]);
    });
  }

  function seek(position) {
    now = Math.min(Math.max(position, 0), last);
    const i = Math.floor(now), from = data.epochs[i], to = data.epochs[Math.min(i + 1, last)];
    const epoch = from + (to - from) * (now - i);
    for (const wheel of wheels) wheel.seekValue(epoch);
    const slider = by("hero-slider");
    if (slider) {
      by("hero-output").textContent = `epoch ${data.epochs[Math.round(now)]}`;
      by("hero-now").style.left = `${100 * now / last}%`;
      slider.value = now;
      slider.setAttribute("aria-valuetext", `epoch ${Math.round(epoch)}`);
    }
    // Rows that change places while all plays could not be followed.
    write(epoch, !playing);
  }

  function choose(which) {
    if (cards[which].hidden) {
      // In place of the one that was not looked at.
      cards.find((card, i) => !card.hidden && i !== setting).hidden = true;
      cards[which].hidden = false;
    }
    setting = which;
    mark();
    seek(now);
  }

  function mark() {
    for (const one of hero.querySelectorAll("[data-setting]")) {
      const i = Number(one.dataset.setting);
      one.classList.toggle("chosen", i === setting);
      if (one.tagName !== "BUTTON") continue;
      one.classList.toggle("seen", !cards[i].hidden);
      one.setAttribute("aria-pressed", i === setting);
    }
  }

  function stop() {
    cancelAnimationFrame(playing);
    playing = 0;
    by("hero-play").textContent = "▶ Play";
    seek(now);
  }

  function play() {
    if (playing) return stop();
    if (still.matches) return seek(now >= last ? 0 : Math.floor(now) + 1);
    const from = now >= last ? 0 : now, start = performance.now();
    by("hero-play").textContent = "❚❚ Pause";
    const step = time => {
      const position = from + Math.max(time - start, 0) / 7000 * last;
      seek(position);
      if (position < last) playing = requestAnimationFrame(step); else stop();
    };
    playing = requestAnimationFrame(step);
  }

  // A class that is chosen in one wheel, or in the table, is chosen in all; of many classes a mark
  // stands for several.
  const single = wheels[0].querySelector(".tf-spokes");
  let busy = false;
  hero.addEventListener("tf-choose", event => {
    if (busy || !single) return;
    busy = true;
    const {index} = event.detail;
    // A wheel takes back a choice that is made again.
    for (const wheel of wheels) if (wheel !== event.target) wheel.choose(index < 0 ? pick : index);
    busy = false;
    pick = index;
    for (const row of rows) row.classList.toggle("chosen", Number(row.dataset.class) === pick);
  });
  body.addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row && single) wheels[0].choose(Number(row.dataset.class));
  });
  for (const one of hero.querySelectorAll("[data-setting]:not(polyline)")) {
    one.addEventListener("click", () => choose(Number(one.dataset.setting)));
  }
  by("hero-more")?.addEventListener("click", event => {
    all = !all;
    event.target.textContent = all ? `Show the ${data.rows} worst` : `Show all ${rows.length}`;
    seek(now);
  });
  by("hero-play")?.addEventListener("click", play);
  by("hero-slider")?.addEventListener("input", event => {
    const position = Number(event.target.value);
    if (playing) stop();
    seek(position);
  });
  mark();
  seek(last);
})();
