// Pictures, maps and plots. A plot is SVG, so that its text takes the page's colours in light and dark.
(globalThis.laboratoryParts ??= []).push(function drawing(laboratory) {
  "use strict";
  // Matplotlib's PuOr, as on the book's other pages: orange below zero, purple above.
  const PUOR = [
    [127, 59, 8], [179, 88, 6], [224, 130, 20], [253, 184, 99], [254, 224, 182], [247, 247, 247],
    [216, 218, 235], [178, 171, 210], [128, 115, 172], [84, 39, 136], [45, 0, 75],
  ];

  const gray = (v) => [255 * v, 255 * v, 255 * v];

  /** Return the colour of v in [-limit, limit]. */
  function diverging(v, limit) {
    const at = Math.min(Math.max((v / limit + 1) / 2, 0), 1) * (PUOR.length - 1), low = Math.min(Math.floor(at), 9);
    return PUOR[low].map((c, i) => c + (at - low) * (PUOR[low + 1][i] - c));
  }

  /** Paint one value a pixel; the canvas has as many pixels as there are values. */
  function paint(canvas, values, colour, label) {
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    values.forEach((v, i) => image.data.set([...colour(v), 255], 4 * i));
    context.putImageData(image, 0, 0);
    if (label) canvas.setAttribute("aria-label", label);
  }

  /** Paint a map of 7 x 7 pixels over its image of 28 x 28, of which the outline is drawn, to see what lies where. */
  function paintMap(canvas, map, limit, image, label) {
    const side = canvas.width, times = side / Math.sqrt(map.length), bright = (x, y) => image[y * side + x] > 0.5;
    const colours = Array.from(image, (_, i) => {
      const x = i % side, y = Math.floor(i / side);
      const colour = diverging(map[Math.floor(y / times) * (side / times) + Math.floor(x / times)], limit);
      const edge = bright(x, y) && ![[1, 0], [-1, 0], [0, 1], [0, -1]].every(([dx, dy]) => bright(x + dx, y + dy));
      return edge ? [40, 40, 40] : colour;
    });
    paint(canvas, colours, (colour) => colour, label);
  }

  /** Return a canvas for a picture or a map, in a figure with a caption that can be changed. */
  function pictureIn(parent, side) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    canvas.width = canvas.height = side;
    canvas.setAttribute("role", "img");
    figure.append(caption, canvas);
    parent.append(figure);
    return { canvas, caption };
  }

  const format = (v, digits = 2) => v.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");

  function svg(width, height, label, body) {
    return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${body}</svg>`;
  }

  /** Return round numbers that cover [low, high], about four of them. */
  function ticks(low, high) {
    const raw = Math.max(high - low, 1e-9) / 4, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= raw);
    const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  }

  const W = 360, H = 220, LEFT = 36, RIGHT = 8, TOP = 8, BOTTOM = 34;

  function frame(low, high, name) {
    const at = ticks(low, high), [bottom, top] = [at[0], at[at.length - 1]];
    const y = (v) => H - BOTTOM - ((v - bottom) / (top - bottom || 1)) * (H - TOP - BOTTOM);
    const digits = Math.max(0, ...at.map((v) => (String(+v.toPrecision(4)).split(".")[1] ?? "").length));
    const kind = (v) => (Math.abs(v) < 1e-9 ? "axis" : "grid");
    const lines = at.map(
      (v) =>
        `<line class="${kind(v)}" x1="${LEFT}" x2="${W - RIGHT}" y1="${y(v)}" y2="${y(v)}"/>` +
        `<text x="${LEFT - 5}" y="${y(v) + 4}" text-anchor="end">${format(v, digits)}</text>`,
    );
    const title = `<text x="${(W + LEFT) / 2}" y="${H - 3}" text-anchor="middle">${name}</text>`;
    return { y, body: lines.join("") + title };
  }

  /** Draw the logits at x and at x' as pairs of bars; t and t' are named below theirs. */
  function logitBars(f, fAdv, t, tPrime) {
    const { y, body } = frame(Math.min(0, ...f, ...fAdv), Math.max(0, ...f, ...fAdv), "class");
    const wide = (W - LEFT - RIGHT) / f.length;
    const bar = (v, x, kind) => {
      const [top, bottom] = [Math.min(y(v), y(0)), Math.max(y(v), y(0))];
      return `<rect class="${kind}" x="${x}" width="${wide * 0.36}" y="${top}" height="${bottom - top}"/>`;
    };
    const bars = [...f].map((v, c) => {
      const x = LEFT + wide * c, mark = c === t ? "t" : c === tPrime ? "t′" : "";
      return (
        bar(v, x + wide * 0.12, "before") + bar(fAdv[c], x + wide * 0.52, "after") +
        `<text class="${mark && "named"}" x="${x + wide / 2}" y="${H - BOTTOM + 15}" text-anchor="middle">` +
        `${c}${mark && ` ${mark}`}</text>`
      );
    });
    const said = [...f].map((v, c) => `class ${c} ${format(v, 1)} and ${format(fAdv[c], 1)}`);
    return svg(W, H, `Logits before and after: ${said.join(", ")}`, body + bars.join(""));
  }

  /** Draw the discrepancy and its bounds over the steps of the attack, and where t' overtakes t. */
  function traceLines(trace, bound) {
    const all = trace.flatMap((point) => [point.discrepancy, point.lost]), last = Math.max(trace.length - 1, 1);
    const { y, body } = frame(Math.min(0, bound, ...all), Math.max(0.01, bound, ...all), "step");
    const x = (k) => LEFT + (k / last) * (W - LEFT - RIGHT - 8);
    const line = (key) => {
      const points = trace.map((point, k) => `${x(k).toFixed(1)},${y(point[key]).toFixed(1)}`);
      return `<polyline class="${key}" points="${points.join(" ")}"/>`;
    };
    const steps = ticks(0, last).filter((k) => k <= last && Number.isInteger(k));
    const mark = (k) => `<text x="${x(k)}" y="${H - BOTTOM + 15}" text-anchor="middle">${k}</text>`;
    const fooled = trace.findIndex((point) => point.fooled), right = fooled > 0.6 * last;
    const upright = `<line class="fooled" x1="${x(fooled)}" x2="${x(fooled)}" y1="${TOP}" y2="${H - BOTTOM}"/>`;
    const [place, anchor] = right ? [x(fooled) - 4, "end"] : [x(fooled) + 4, "start"];
    const words = `<text x="${place}" y="${TOP + 10}" text-anchor="${anchor}">t′ overtakes t</text>`;
    const end = trace[trace.length - 1];
    const label =
      `After the last step the discrepancy is ${format(end.discrepancy)}, the least that the logits allow ` +
      `${format(end.lost)}; the bound of Proposition 1 is ${format(bound)}; ` +
      (fooled < 0 ? "t′ does not overtake t" : `t′ overtakes t at step ${fooled}`);
    const level = `<line class="bound" x1="${LEFT}" x2="${W - RIGHT}" y1="${y(bound)}" y2="${y(bound)}"/>`;
    const lines = level + line("lost") + line("discrepancy") + (fooled < 0 ? "" : upright + words);
    return svg(W, H, label, body + steps.map(mark).join("") + lines);
  }

  /** Draw the detector's scores of x and x' as bars, and its threshold. */
  function detectorBars([before, after], threshold) {
    const most = 1.1 * Math.max(before, after, threshold), x = (v) => LEFT + (v / most) * (W - LEFT - RIGHT);
    const row = (name, v, y, kind) => {
      const inside = v > most / 2, [place, anchor] = inside ? [x(v) - 5, "end"] : [x(v) + 5, "start"];
      return (
        `<text x="${LEFT - 8}" y="${y + 15}" text-anchor="end">${name}</text>` +
        `<rect class="${kind}" x="${LEFT}" y="${y}" width="${x(v) - LEFT}" height="20"/>` +
        `<text x="${place}" y="${y + 15}" text-anchor="${anchor}" data-inside="${inside}">${format(v)}</text>`
      );
    };
    const level = `<line class="bound" x1="${x(threshold)}" x2="${x(threshold)}" y1="2" y2="66"/>` +
      `<text x="${x(threshold)}" y="80" text-anchor="${threshold > 0.6 * most ? "end" : "middle"}">` +
      `threshold ${format(threshold)}</text>`;
    const label = `The detector's score is ${format(before)} for x and ${format(after)} for x′; its threshold is `;
    const bars = row("x", before, 8, "before") + row("x′", after, 38, "after");
    return svg(W, 86, label + format(threshold), bars + level);
  }

  Object.assign(laboratory, { gray, diverging, paint, paintMap, pictureIn, format });
  Object.assign(laboratory, { logitBars, traceLines, detectorBars });
});
