// The page: controls to settings, settings to an experiment, its result to pictures.
(function () {
  "use strict";
  const root = document.getElementById("lab");
  if (!root) return;
  const laboratory = {}, base = document.currentScript.src.replace(/[^/]*$/, "");
  for (const part of globalThis.laboratoryParts) part(laboratory);
  const { format } = laboratory, { images, networks } = globalThis.laboratoryData;
  const bytes = laboratory.decodeBytes(images.bytes), SIDE = 28, PIXELS = SIDE * SIDE;
  const pixelsOf = (i) => bytes.subarray(i * PIXELS, (i + 1) * PIXELS);
  const byId = (id) => document.getElementById(`lab-${id}`);
  const SLIDERS = { e: ["eps", "ε", 2], k: ["steps", "", 0], s: ["alpha", "α", 3] };
  const SELECTS = { n: "network", a: "attack", t: "target", from: "start" };
  let state, job = 0, asked = null, writing = 0, frame = 0;

  function answer(message) {
    if (message.id !== job) return;
    if (message.result) {
      results.show(message.result, { ...asked, attack: state.a, ms: message.ms });
      root.classList.remove("busy");
      root.dataset.done = job;
      return;
    }
    byId("progress").value = message.taken / asked.total;
    root.classList.toggle("busy", performance.now() - asked.began > 250);
  }

  const send = laboratory.startRunner(answer), results = laboratory.resultsIn(root);
  const load = laboratory.networkLoader(base, send);

  /** The image x as numbers in [0, 1]. */
  function image() {
    if (state.i === "drawn") return Float64Array.from(state.drawing, (v) => v / laboratory.LEVELS);
    return Float64Array.from(pixelsOf(Number(state.i)), (v) => v / 255);
  }

  async function run() {
    const id = job;
    let about;
    try {
      about = await load(state.n);
    } catch (error) {
      byId("status").textContent = error.message;
      return;
    }
    if (id !== job) return;
    const x = image(), f = laboratory.logits(about.net, x), drawn = state.i === "drawn";
    const y = drawn ? laboratory.argmax(f) : images.labels[state.i], free = state.a === "aai" || state.a === "top";
    settleTarget(y, drawn ? laboratory.argmax(f, y) : images.targets[state.i]);
    const target = free || state.t === "any" ? null : Number(state.t);
    const steps = Number(state.k), eps = Number(state.e), alpha = Number(state.s);
    const total = laboratory.totalSteps(state.a, steps) + steps + 1;
    asked = { about, drawn, target, eps, total, began: performance.now() };
    const seed = state.from === "random" ? Number(state.seed) : null;
    send({ id, network: state.n, x, y, target, attack: state.a, eps, alpha, steps, seed });
  }

  /** A target is another class than y; ISA needs one, AAI has none. */
  function settleTarget(y, usual) {
    const select = byId("target");
    const refused = (value) => value === String(y) || (value === "any" && state.a === "isa");
    for (const option of select.options) option.disabled = refused(option.value);
    if (refused(state.t)) state.t = String(usual);
    select.value = state.t;
  }

  // From controls to settings.
  function changed() {
    const before = state.i;
    for (const [key, id] of Object.entries(SELECTS)) state[key] = byId(id).value;
    for (const [key, [id]] of Object.entries(SLIDERS)) state[key] = byId(id).value;
    state.i = root.querySelector("input[name=image]:checked").value;
    if (state.i !== before && state.i !== "drawn" && state.t !== "any") state.t = String(images.targets[state.i]);
    settle();
  }

  /** Make controls and settings agree, ask for an experiment, and write the link once the hand rests. */
  function settle() {
    state.drawing ??= new Uint8Array(PIXELS);
    if (state.a === "aai") state.from = "random"; // at x the gradient of the norm is 0
    for (const [key, id] of Object.entries(SELECTS)) byId(id).value = state[key];
    for (const [key, [id, symbol, digits]] of Object.entries(SLIDERS)) {
      const slider = byId(id), text = `${symbol && `${symbol} = `}${format(Number(state[key]), digits)}`;
      slider.value = state[key];
      slider.setAttribute("aria-valuetext", symbol ? text : `${text} steps`);
      byId(`${id}-value`).value = text;
    }
    root.querySelector(`input[name=image][value="${state.i}"]`).checked = true;
    byId("start").options[0].disabled = state.a === "aai";
    byId("target").disabled = state.a === "aai" || state.a === "top";
    byId("again").disabled = state.from !== "random";
    byId("link").hidden = true;
    byId("hint").hidden = state.drawing.some((v) => v);
    paintPad();
    root.dataset.asked = ++job;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(run);
    clearTimeout(writing);
    writing = setTimeout(() => history.replaceState(null, "", laboratory.writeLink(state)), 400);
  }

  function fromLink() {
    const drawing = state?.drawing;
    const keys = networks.map((network) => network.key);
    state = laboratory.readLink(location.hash, keys, images.labels.length);
    state.drawing ??= drawing;
    settle();
  }

  // The drawing field.
  const pad = byId("pad"), cursor = { x: 14, y: 14, shown: false };
  function paintPad() {
    const values = Array.from(state.drawing, (v) => laboratory.gray(v / laboratory.LEVELS));
    if (cursor.shown) values[cursor.y * SIDE + cursor.x] = [255, 140, 0];
    laboratory.paint(pad, values, (rgb) => rgb);
  }

  function drawn() {
    state.i = "drawn";
    settle();
  }

  function drawTo(from, to) {
    const length = Math.max(1, Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)));
    for (let k = 0; k <= length; k++) {
      const part = k / length;
      laboratory.ink(state.drawing, from.x + part * (to.x - from.x), from.y + part * (to.y - from.y));
    }
    drawn();
  }

  function watchPad() {
    let last = null;
    const place = (event) => {
      const box = pad.getBoundingClientRect();
      return { x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE };
    };
    pad.addEventListener("pointerdown", (event) => {
      pad.setPointerCapture(event.pointerId);
      last = place(event);
      cursor.shown = false;
      drawTo(last, last);
    });
    pad.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = place(event);
      drawTo(last, next);
      last = next;
    });
    for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (last = null));
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    pad.addEventListener("keydown", (event) => {
      const here = { x: cursor.x + 0.5, y: cursor.y + 0.5 };
      if (moves[event.key]) {
        const inside = (v) => Math.min(Math.max(v, 0), SIDE - 1);
        cursor.x = inside(cursor.x + moves[event.key][0]);
        cursor.y = inside(cursor.y + moves[event.key][1]);
      } else if (event.key === " ") drawTo(here, here);
      else if (event.key === "Backspace") {
        const far = (i) => Math.hypot((i % SIDE) - cursor.x, Math.floor(i / SIDE) - cursor.y) >= 2;
        state.drawing = state.drawing.map((v, i) => (far(i) ? v : 0));
        drawn();
      } else return;
      event.preventDefault();
      cursor.shown = true;
      paintPad();
    });
    for (const [event, shown] of [["focus", true], ["blur", false]]) {
      pad.addEventListener(event, () => {
        cursor.shown = shown && pad.matches(":focus-visible");
        paintPad();
      });
    }
    byId("clear").addEventListener("click", () => {
      state.drawing = new Uint8Array(PIXELS);
      drawn();
    });
    byId("centre").addEventListener("click", () => {
      state.drawing = laboratory.centred(state.drawing);
      drawn();
    });
  }

  function fill() {
    byId("network").innerHTML = networks.map(({ key, title }) => `<option value="${key}">${title}</option>`).join("");
    const classes = Array.from({ length: 10 }, (_, c) => `<option value="${c}">class ${c}</option>`);
    byId("target").innerHTML = `<option value="any">any other class</option>${classes.join("")}`;
    images.labels.forEach((y, i) => {
      const [label, radio, canvas] = ["label", "input", "canvas"].map((tag) => document.createElement(tag));
      Object.assign(radio, { type: "radio", name: "image", value: String(i) });
      radio.setAttribute("aria-label", `${laboratory.a(y)}, test image ${images.numbers[i]}`);
      canvas.width = canvas.height = SIDE;
      laboratory.paint(canvas, pixelsOf(i), (v) => [v, v, v]);
      label.append(radio, canvas);
      label.style.order = i % 2 ? 1 : 0; // one row for the first of each class, one for the second
      byId("thumbnails").append(label);
    });
  }

  async function copyLink() {
    const link = byId("link"), button = byId("copy");
    history.replaceState(null, "", laboratory.writeLink(state));
    link.value = location.href;
    try {
      await navigator.clipboard.writeText(link.value);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy link"), 1500);
    } catch {
      link.hidden = false;
      link.select();
    }
  }

  fill();
  watchPad();
  root.querySelector("form").addEventListener("input", (event) => event.target !== byId("link") && changed());
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  byId("copy").addEventListener("click", copyLink);
  byId("again").addEventListener("click", () => {
    state.seed = String((Number(state.seed) % 999999999) + 1);
    settle();
  });
  window.addEventListener("hashchange", fromLink);
  root.hidden = false;
  fromLink();
})();
