// The settings of the page, as one object and as a link; a drawn digit is part of them.
(globalThis.laboratoryParts ??= []).push(function settings(laboratory) {
  "use strict";
  const SIDE = 28, LEVELS = 15;
  const DEFAULTS = { n: "normal", i: "14", a: "pgd", t: "9", e: "0.2", k: "40", s: "0.01", from: "x", seed: "1" };
  const KNOWN = {
    i: /^(drawn|\d{1,2})$/, a: /^(pgd|isa|aai|top)$/, t: /^(any|\d)$/, from: /^(x|random)$/, seed: /^\d{1,9}$/,
  };
  const RANGES = { e: [0, 0.5], k: [0, 200], s: [0.002, 0.1] };

  /** Write a drawing, grey levels 0 .. 15, as letters: two pixels a byte, base64 for addresses. */
  function encodeDrawing(levels) {
    let bytes = "";
    for (let i = 0; i < levels.length; i += 2) bytes += String.fromCharCode(16 * levels[i] + levels[i + 1]);
    return btoa(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  /** Read what `encodeDrawing` wrote; null for anything else. */
  function decodeDrawing(text) {
    try {
      const bytes = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
      if (bytes.length !== (SIDE * SIDE) / 2) return null;
      return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => {
        const byte = bytes.charCodeAt(i >> 1);
        return i % 2 ? byte & 15 : byte >> 4;
      });
    } catch {
      return null;
    }
  }

  /** Return the settings that a link holds; what it does not say, or says wrongly, is as at the beginning. */
  function readLink(hash, networks, images) {
    const given = new URLSearchParams(hash.replace(/^#/, "")), state = { ...DEFAULTS };
    for (const [key, value] of given) {
      if (key === "n" ? networks.includes(value) : KNOWN[key]?.test(value)) state[key] = value;
      const [low, high] = RANGES[key] ?? [1, 0];
      if (value !== "" && Number(value) >= low && Number(value) <= high) state[key] = value;
    }
    if (state.i !== "drawn" && Number(state.i) >= images) state.i = DEFAULTS.i;
    return { ...state, drawing: decodeDrawing(given.get("d") ?? "") };
  }

  /** Return the link's part after #, with the drawing only where it is the image. */
  function writeLink({ drawing, ...state }) {
    const said = new URLSearchParams(state);
    if (state.from !== "random") said.delete("seed");
    if (state.i === "drawn") said.set("d", encodeDrawing(drawing));
    return `#${said}`;
  }

  /** Add ink at (x, y), in pixels of the drawing: a round soft pen, a little more than a pixel wide. */
  function ink(levels, x, y) {
    for (let py = 0; py < SIDE; py++) {
      for (let px = 0; px < SIDE; px++) {
        const distance = Math.hypot(px + 0.5 - x, py + 0.5 - y);
        const level = Math.round(LEVELS * Math.min(Math.max(2 - distance, 0), 1));
        if (level > levels[py * SIDE + px]) levels[py * SIDE + px] = level;
      }
    }
  }

  /** Return the drawing with its centre of mass in the middle, by whole pixels, as MNIST's digits have it. */
  function centred(levels) {
    let mass = 0, cx = 0, cy = 0;
    levels.forEach((v, i) => {
      mass += v;
      cx += v * (i % SIDE);
      cy += v * Math.floor(i / SIDE);
    });
    if (!mass) return levels;
    const dx = Math.round(cx / mass - SIDE / 2 + 0.5), dy = Math.round(cy / mass - SIDE / 2 + 0.5);
    return levels.map((_, i) => {
      const x = (i % SIDE) + dx, y = Math.floor(i / SIDE) + dy;
      return x >= 0 && x < SIDE && y >= 0 && y < SIDE ? levels[y * SIDE + x] : 0;
    });
  }

  Object.assign(laboratory, { encodeDrawing, decodeDrawing, readLink, writeLink, ink, centred, LEVELS });
});
