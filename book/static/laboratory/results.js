// From the result of an experiment to the page: a sentence, pictures, plots and a table.
(globalThis.laboratoryParts ??= []).push(function results(laboratory) {
  "use strict";
  const SIDE = 28;

  const a = (c) => (c === 8 ? "an 8" : `a ${c}`);

  /** Say what the attack did, in one or two sentences. */
  function sentence({ y, trace, logitsAdv, tau, bound }, { about, attack, drawn, target }, first, last) {
    const { format } = laboratory, seen = drawn ? `the drawing, ${a(y)} before,` : `the ${y}`;
    const p = `(probability ${format(laboratory.softmax(logitsAdv)[last])})`, end = trace[trace.length - 1];
    const said = first === y ? [] : [`${about.method} takes x itself, ${seen}, for ${a(first)}.`];
    if (attack === "aai" || attack === "top") {
      said.push(`AAI ${last === y ? `keeps the prediction ${y}` : `changes the prediction to ${last}`} ${p}.`);
      said.push(`It moves the map of ${y} by ${format(end.own)}, and its rank correlation is τ = ${format(tau[0])}.`);
      return said.join(" ");
    }
    const name = attack.toUpperCase(), reached = target === null ? last !== y : last === target;
    said.push(
      reached
        ? `${name} succeeds: ${about.method} takes ${seen} for ${a(last)} ${p}.`
        : `${name} fails: ${about.method} sees ${a(last)} ${p}.`,
    );
    const rest = end.fooled
      ? `the bound of Proposition 1 is ${format(bound)}`
      : `an attack that succeeds needs ${format(bound)}, by Proposition 1`;
    return `${said.join(" ")} The discrepancy of the maps is ${format(end.discrepancy)}; ${rest}.`;
  }

  /** Return the rows of the table: [name, value]. */
  function numbers(result) {
    const { format } = laboratory, { trace, y, tPrime, discrepancy, bound } = result, end = trace[trace.length - 1];
    const [before, after] = [result.logits, result.logitsAdv].map(laboratory.softmax);
    return [
      ["Probability of t", `${format(before[y])} → ${format(after[y])}`],
      ["Probability of t′", `${format(before[tPrime])} → ${format(after[tPrime])}`],
      ["Discrepancy of the two maps, eq. (4)", format(discrepancy)],
      ["Bound of Proposition 1, eq. (5)", `${format(bound)}${end.fooled ? "" : " once t′ leads"}`],
      ...(end.fooled && bound > 0 ? [["Discrepancy over bound", format(discrepancy / bound)]] : []),
      ["Change of the map of t alone, ℓ1", format(end.own)],
      ["Kendall's τ, map of t", format(result.tau[0])],
      ["Kendall's τ, map of t′", format(result.tau[1])],
      ["Largest change of a pixel", format(result.size)],
      ...(result.gamma === null ? [] : [["γ = 1/λ that ISA found", format(result.gamma)]]),
    ];
  }

  /** Prepare the places for results below `root`; return {show}. */
  function resultsIn(root) {
    const { format, paint, pictureIn } = laboratory, byId = (id) => root.querySelector(`#lab-${id}`);
    const pictures = ["x", "x′", "change"].map(() => pictureIn(byId("pictures"), SIDE));
    const groups = ["t", "t′"].map((name) => {
      const [group, title, pair] = ["div", "p", "div"].map((tag) => document.createElement(tag));
      group.className = "lab-map";
      pair.className = "lab-pair";
      group.append(title, pair);
      byId("maps").append(group);
      return { name, title, pair: [pictureIn(pair, SIDE), pictureIn(pair, SIDE)] };
    });

    function showPictures({ x, xAdv, y }, eps, first, last) {
      const titles = [`x: seen as ${first}`, `x′: seen as ${last}`, `x′ − x, ±${format(eps)}`];
      const change = xAdv.map((v, i) => v - x[i]), signed = (v) => laboratory.diverging(v, Math.max(eps, 1e-6));
      [x, xAdv, change].forEach((values, i) => {
        paint(pictures[i].canvas, values, i < 2 ? laboratory.gray : signed, titles[i]);
        pictures[i].caption.textContent = titles[i];
      });
      pictures[1].caption.classList.toggle("wrong", last !== y);
    }

    function showMaps({ x, xAdv, y, tPrime, maps, mapsAdv, tau }) {
      const most = Math.max(...[...maps, ...mapsAdv].flatMap((map) => [...map].map(Math.abs)));
      groups.forEach(({ name, title, pair }, j) => {
        const map = `Map of ${name} = ${j ? tPrime : y}`;
        title.innerHTML = `${map}: <b>τ = ${format(tau[j])}</b>`;
        [maps[j], mapsAdv[j]].forEach((values, k) => {
          const place = k ? "x′" : "x", logit = format(values.reduce((sum, v) => sum + v), 1);
          pair[k].caption.textContent = `at ${place}, sum ${logit}`;
          const label = `${map} at ${place}, which sums to the logit ${logit}`;
          laboratory.paintMap(pair[k].canvas, values, most, k ? xAdv : x, label);
        });
      });
      const shades = Array.from({ length: 101 }, (_, i) => i - 50);
      paint(byId("scale"), shades, (v) => laboratory.diverging(v, 50), `Colours of the maps, up to ±${format(most)}`);
      byId("low").textContent = `−${format(most)}`;
      byId("high").textContent = `${format(most)} of the logit a pixel`;
    }

    function showDetector(scores, { title, threshold, natural }) {
      const does = (score) => (score > threshold ? "reports" : "lets pass");
      byId("detector-title").textContent = `A detector that has no x: scores on ${title}`;
      byId("detector").innerHTML = laboratory.detectorBars(scores, threshold);
      byId("verdict").textContent =
        `It ${does(scores[0])} x and ${does(scores[1])} x′. ` +
        `One in twenty of ${natural} natural images lies above its threshold.`;
    }

    /** Show a result; `asked` has the network's data, the attack, drawn, target, eps and the time it took. */
    function show(result, asked) {
      const [first, last] = [result.logits, result.logitsAdv].map((f) => laboratory.argmax(f)), { ms } = asked;
      showPictures(result, asked.eps, first, last);
      byId("logits").innerHTML = laboratory.logitBars(result.logits, result.logitsAdv, result.y, result.tPrime);
      byId("trace").innerHTML = laboratory.traceLines(result.trace, result.bound);
      showMaps(result);
      const row = ([name, value]) => `<tr><th scope="row">${name}</th><td>${value}</td></tr>`;
      byId("numbers").innerHTML = numbers(result).map(row).join("");
      showDetector(result.detector, asked.about);
      byId("status").textContent = sentence(result, asked, first, last);
      byId("time").textContent = `computed in ${ms < 1000 ? `${Math.ceil(ms)} ms` : `${format(ms / 1000, 1)} s`}`;
    }

    return { show };
  }

  Object.assign(laboratory, { a, resultsIn });
});
