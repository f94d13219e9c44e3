"use strict";
// What the page does without its server: theme, sliders, views, the link, files.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.explore = (() => {
  const keep = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const changed = () => window.dash_clientside.callback_context.triggered.map(t => t.prop_id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => set("theme", {data: theme()}));

  function start() {
    addFileField();
    for (const form of document.querySelectorAll("form")) {
      form.addEventListener("submit", event => event.preventDefault());
    }
    return theme();
  }

  // A slider shows the exponent of the (first) number beside it. The first move counts at once;
  // of those that follow quickly, the last.
  const written = {};
  let moves = 0, counted = -Infinity;
  function slide(exponent, text) {
    const id = window.dash_clientside.callback_context.inputs_list[1].id;
    const number = Number(String(text).split(",")[0]);
    const there = number > 0 ? Math.log10(number) : null;
    if (!changed().some(name => name.endsWith("-slider.value"))) {
      // What a slider has written must not move it: it may be further on already.
      const own = there === null || text === written[id];
      return [keep(), own ? keep() : Math.round(there * 50) / 50];
    }
    if (there !== null && Math.abs(there - exponent) < 0.0101) return [keep(), keep()];
    const move = ++moves, wait = Math.max(0, counted + 100 - performance.now());
    const count = () => {
      if (move !== moves) return [keep(), keep()];
      counted = performance.now();
      written[id] = String(Number((10 ** exponent).toPrecision(3)));
      return [written[id], keep()];
    };
    return wait ? new Promise(done => setTimeout(() => done(count()), wait)) : count();
  }

  // Figures drawn while they were hidden have no size yet.
  const resized = () => requestAnimationFrame(() => dispatchEvent(new Event("resize")));

  function choose(view) {
    resized();
    return "show-" + view;
  }

  const need = bias => (bias === "decayed" ? "" : "gone");

  function remember(query) {
    const link = query ? "?" + query : location.pathname;
    if (query !== undefined && query !== null && location.search !== (query ? link : "")) {
      history.replaceState(history.state, "", link);
    }
    return [link, location.origin + "/" + (query ? link : "")];
  }

  // The message starts with the field's name. A picture stays, pale, until there is another; what
  // was never drawn is not shown.
  const drawn = new Set();
  function point(message, view) {
    const wrong = (message || "").split(":")[0].split(", ");
    for (const field of document.querySelectorAll("#controls input, #margin")) {
      if (field.id && wrong.includes(field.id)) {
        field.setAttribute("aria-invalid", "true");
        field.setAttribute("aria-describedby", "message");
      } else {
        field.removeAttribute("aria-invalid");
        field.removeAttribute("aria-describedby");
      }
    }
    if (message === "") drawn.add(view);
    const views = document.getElementById("views").classList;
    views.toggle("stale", Boolean(message));
    const blank = Boolean(message) && !drawn.has(view);
    if (views.contains("blank") && !blank) resized();
    views.toggle("blank", blank);
    return "";
  }

  function follow(...given) {
    window.tightframeScene.follow(...given);
    return keep();
  }

  async function copy(clicks, code) {
    if (!clicks) return keep();
    try {
      await navigator.clipboard.writeText(code);
      return "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById("code"));
      return "Selected: press Ctrl+C";
    }
  }

  // Advice is about one problem; another view of it changes nothing.
  let advised = null;
  function outdate(query) {
    const problem = new URLSearchParams(query || "");
    problem.delete("view");
    const now = problem.toString();
    const old = advised;
    advised = now;
    return old === null || old === now ? keep() : [];
  }

  // -- files ------------------------------------------------------------------------------------

  function addFileField() {
    const place = document.getElementById("drop");
    if (!place || place.firstChild) return;
    const label = document.createElement("label");
    label.textContent = "Drop a file anywhere on this page, or choose one: ";
    const field = Object.assign(document.createElement("input"), {type: "file", id: "features-file",
      accept: ".npz,.safetensors,.npy,.txt,.csv,.tsv"});
    label.append(field);
    const sample = Object.assign(document.createElement("button"),
                                 {type: "button", id: "sample", textContent: "Try a sample features file"});
    sample.addEventListener("click", async () => {
      const name = place.dataset.sample.slice(1);
      await send(new File([await (await fetch(place.dataset.sample)).blob()], name));
      const state = JSON.parse(place.dataset.sampleState);
      for (const id of ["weight_decay", "feature_decay"]) set(id, {value: state[id]});
    });
    place.append(label, sample);
    field.addEventListener("change", () => field.files.length && send(field.files[0]));
    // Anywhere on the page: a file that misses the field would replace the page.
    addEventListener("dragover", event => {
      event.preventDefault();
      place.classList.add("over");
    });
    addEventListener("dragleave", () => place.classList.remove("over"));
    addEventListener("drop", event => {
      event.preventDefault();
      place.classList.remove("over");
      if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
    });
  }

  async function send(file) {
    const say = children => {
      set("upload-message", {children});
      if (children) document.getElementById("own").open = true;  // else a dropped file fails unseen
    };
    say("");
    document.getElementById("drop").classList.add("busy");
    try {
      const limit = Number(document.getElementById("drop").dataset.limit);
      if (file.size > limit) return say(`${file.name}: larger than ${limit / 2 ** 20} MiB`);
      const reply = await fetch("/upload?name=" + encodeURIComponent(file.name), {
        method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}});
      const answer = await reply.json();
      if (answer.message) return say(answer.message);
      set("file", {data: answer.key});
      if (answer.key) set("view", {value: "measured"});
      document.getElementById("own").open = false;
      if (answer.counts) set("counts", {value: answer.counts});  // none where a class is absent
    } catch (error) {
      say(`${file.name}: could not be sent (${error.message})`);
    } finally {
      document.getElementById("drop").classList.remove("busy");
    }
  }

  return {start, slide, choose, need, remember, point, follow, copy, outdate};
})();
