// The landing page's glance at the laboratory: one image, one attack on two networks, one slider.
(function () {
  "use strict";
  const root = document.getElementById("lab-glance");
  if (!root) return;
  const laboratory = {}, base = document.currentScript.src.replace(/[^/]*$/, "");
  for (const part of globalThis.laboratoryParts) part(laboratory);
  const { images } = globalThis.laboratoryData, SIDE = 28, PIXELS = SIDE * SIDE, IMAGE = 2, STEPS = 10;
  const y = images.labels[IMAGE], target = images.targets[IMAGE];
  const bytes = laboratory.decodeBytes(images.bytes).subarray(IMAGE * PIXELS, (IMAGE + 1) * PIXELS);
  const x = Float64Array.from(bytes, (v) => v / 255), a = (c) => (c === 8 ? "an 8" : `a ${c}`);
  const slider = root.querySelector("input"), value = root.querySelector("output");
  const status = root.querySelector("[role=status]");

  const NETWORKS = ["normal", "int"];
  const pictures = NETWORKS.map(() => [0, 1, 2].map(() => laboratory.pictureIn(root.querySelector(".lab-six"), SIDE)));
  let job = 0, seen = [];

  function show(k, method, { xAdv, maps, mapsAdv, logitsAdv }) {
    const [image, before, after] = pictures[k], last = laboratory.argmax(logitsAdv);
    const most = Math.max(...[...maps[0], ...mapsAdv[0]].map(Math.abs)), map = `map of ${y}`;
    seen[k] = `${method} sees ${a(last)}`;
    image.caption.textContent = `${method}: ${a(last)}`;
    image.caption.classList.toggle("wrong", last !== y);
    before.caption.textContent = "map at x";
    after.caption.textContent = "map at x′";
    laboratory.paint(image.canvas, xAdv, laboratory.gray, `The attacked image: ${seen[k]}`);
    laboratory.paintMap(before.canvas, maps[0], most, x, `${method}, ${map} before the attack`);
    laboratory.paintMap(after.canvas, mapsAdv[0], most, xAdv, `${method}, ${map} after the attack`);
  }

  /** Attack the networks one after the other; a new value of the slider begins again. */
  async function run(k) {
    const id = job, { method } = await load(NETWORKS[k]), eps = Number(slider.value);
    if (id !== job) return;
    waiting = (result) => {
      show(k, method, result);
      if (k + 1 < NETWORKS.length) run(k + 1);
      else status.textContent = `At ε = ${laboratory.format(eps)} ${seen.join(", and ")}.`;
    };
    send({ id, network: NETWORKS[k], x, y, target, attack: "pgd", eps, alpha: Math.max(eps, 0.001) / 4, steps: STEPS });
  }

  function changed() {
    job += 1;
    const text = `ε = ${laboratory.format(Number(slider.value))}`;
    value.value = text;
    slider.setAttribute("aria-valuetext", text);
    run(0).catch((error) => (status.textContent = error.message));
  }

  let waiting = null;
  const send = laboratory.startRunner((message) => message.id === job && message.result && waiting(message.result));
  const load = laboratory.networkLoader(base, send);
  slider.addEventListener("input", changed);
  root.hidden = false;
  changed();
})();
