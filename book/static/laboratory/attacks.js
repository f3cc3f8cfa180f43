// The attacks as objectives of one projected ascent, and an experiment: an attack with everything that the page shows.
// They are generators that pause after every step, so that a run can be shown, sliced and given up.
(globalThis.laboratoryParts ??= []).push(function attacks(laboratory) {
  "use strict";
  const { argmax, cam, discrepancy, explain, inputGradient, kendallTau, logits, margin, softmax } = laboratory;

  /** Return clip(z, max(x - eps, 0), min(x + eps, 1)): the projection onto ball and box. */
  const project = (z, x, eps) =>
    z.map((v, i) => Math.min(Math.max(v, Math.max(x[i] - eps, 0)), Math.min(x[i] + eps, 1)));

  /**
   * Maximise an objective in the ball: x^{k+1} = P(x^k + alpha sign(gradient)); returns [x^0, ..., x^steps].
   * `gradient` takes an image; `start` is the first iterate, x itself where it is null.
   */
  function* ascend(gradient, x, { eps, alpha, steps, start = null }) {
    const iterates = [start ? project(start, x, eps) : x];
    for (let k = 0; k < steps; k++) {
      const z = iterates[k], slope = gradient(z);
      iterates.push(project(z.map((v, i) => v + alpha * Math.sign(slope[i])), x, eps));
      yield;
    }
    return iterates;
  }

  /** Return x + u clipped to [0, 1], u uniform in [-eps, eps]; one seed, one point (the generator mulberry32). */
  function uniformStart(x, eps, seed) {
    let state = seed >>> 0;
    const random = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return x.map((v) => Math.min(Math.max(v + (2 * random() - 1) * eps, 0), 1));
  }

  /** PGD: climb the cross-entropy of y, or descend that of a target. */
  function* pgd(net, x, { y, target = null, ...ascent }) {
    const label = target ?? y, sign = target === null ? 1 : -1;
    const gradient = (z) => inputGradient(net, softmax(logits(net, z)).map((p, c) => sign * (p - (c === label))));
    return { iterates: yield* ascend(gradient, x, ascent) };
  }

  /** The derivative of max{max_{j != c} f_j - f_c, floor} with respect to f, times a weight, added to `into`. */
  function addHinge(into, f, c, floor, weight) {
    if (-margin(f, c) < floor) return;
    into[argmax(f, c)] += weight;
    into[c] -= weight;
  }

  /** The derivative of the l1 discrepancy with respect to the second maps, times a weight. */
  const discrepancyGradient = (maps, mapsAdv, weight) =>
    mapsAdv.map((map, j) => map.map((v, i) => (weight * Math.sign(v - maps[j][i])) / maps.length));

  /** The gradient that ISA climbs: of -max{max_{j != t'} f_j - f_t', -tau} - gamma D(x, z), eq. (6) over lambda. */
  function sneakingGradient(net, x, y, target, gamma, tau) {
    const classes = [y, target], clean = cam(net, x, classes);
    return (z) => {
      const now = explain(net, z, classes), d = new Float64Array(10);
      addHinge(d, now.logits, target, -tau, -1);
      const dMaps = gamma ? discrepancyGradient(clean, now.maps, -gamma) : [];
      return inputGradient(net, d, dMaps, classes);
    };
  }

  /**
   * ISA, eq. (6): search the largest weight gamma = 1 / lambda of the discrepancy with which the attack succeeds.
   * A success raises gamma and a failure lowers it, by doubling and bisection; the plain attack has gamma 0.
   */
  function* isa(net, x, { y, target, tau = 0.1, search = { first: 0.1, high: 100, rounds: 10 }, ...ascent }) {
    const run = (gamma, more) => ascend(sneakingGradient(net, x, y, target, gamma, tau), x, { ...ascent, ...more });
    const reached = (iterates) => margin(logits(net, iterates[iterates.length - 1]), target) > 0;
    let best = yield* run(0), success = reached(best);
    // At x the maps agree and D has the subgradient 0, so that from there all rounds share their first step.
    const begin = ascent.start ? [] : best.slice(0, ascent.steps ? 2 : 1), shared = Math.max(begin.length - 1, 0);
    const rest = begin.length ? { start: begin[shared], steps: ascent.steps - shared } : {};
    let value = search.first, low = 0, high = search.high;
    for (let round = 0; round < search.rounds; round++) {
      const tail = yield* run(value, rest), up = reached(tail);
      if (up) [best, success] = [begin.slice(0, shared).concat(tail), true];
      [low, high] = up ? [value, high] : [low, value];
      value = up ? Math.min(2 * value, (low + high) / 2) : (low + high) / 2;
    }
    return { iterates: best, gamma: low, success };
  }

  /**
   * AAI, eq. (7): climb D_1(x, z) - lambda max{max_{j != t} f_j - f_t, 0}; lambda is `hinge`. With `topK`, D_1 is the
   * fall of the map at the pixels that are largest on x, as in Table 2.
   */
  function* aai(net, x, { y, hinge = 1, topK = null, ...ascent }) {
    const clean = cam(net, x, [y]), order = [...clean[0].keys()].sort((a, b) => clean[0][b] - clean[0][a]);
    const fall = new Float64Array(clean[0].length);
    for (const pixel of order.slice(0, topK ?? 0)) fall[pixel] = -1;
    const gradient = (z) => {
      const now = explain(net, z, [y]), d = new Float64Array(10);
      addHinge(d, now.logits, y, 0, -hinge);
      return inputGradient(net, d, topK ? [fall] : discrepancyGradient(clean, now.maps, 1), [y]);
    };
    return { iterates: yield* ascend(gradient, x, ascent) };
  }

  const ATTACKS = {
    pgd,
    isa,
    aai: (net, x, settings) => aai(net, x, { ...settings, hinge: 1 }),
    top: (net, x, settings) => aai(net, x, { ...settings, hinge: 0, topK: 8 }),
  };

  /** How many ascent steps an attack takes at most, for the progress bar. */
  const totalSteps = (attack, steps) => (attack === "isa" ? 11 : 1) * steps;

  /**
   * Run one attack and measure it. Settings: x, y, target (null: none), attack, eps, alpha, steps, start (an array) or
   * seed (a whole number; null: from x), and for ISA its search. Yields the steps taken so far.
   */
  function* experiment(net, { x, y, target = null, attack, start = null, seed = null, ...settings }) {
    const f = logits(net, x), first = start ?? (seed === null ? null : uniformStart(x, settings.eps, seed));
    const run = ATTACKS[attack](net, x, { ...settings, y, target, start: first });
    let taken = 0, step = run.next();
    while (!step.done) {
      yield ++taken;
      step = run.next();
    }
    const { iterates, gamma = null } = step.value, xAdv = iterates[iterates.length - 1];
    const fAdv = logits(net, xAdv), tPrime = target ?? argmax(fAdv, y), classes = [y, tPrime];
    const maps = cam(net, x, classes), trace = [];
    for (const z of iterates) {
      const now = explain(net, z, classes), own = discrepancy(maps.slice(0, 1), now.maps.slice(0, 1));
      // What Proposition 1's proof gives for any z: half of what the margin of t over t' has lost.
      const lost = (f[y] - f[tPrime] - now.logits[y] + now.logits[tPrime]) / 2;
      trace.push({ discrepancy: discrepancy(maps, now.maps), own, lost, fooled: now.logits[tPrime] >= now.logits[y] });
      yield taken;
    }
    const mapsAdv = cam(net, xAdv, classes);
    return {
      ...{ x, xAdv, y, tPrime, gamma, trace, maps, mapsAdv, logits: f, logitsAdv: fAdv },
      tau: maps.map((map, j) => kendallTau(map, mapsAdv[j])),
      discrepancy: discrepancy(maps, mapsAdv),
      bound: laboratory.proposition1Bound(f, y, tPrime),
      detector: [x, xAdv].map((z) => laboratory.detectorScore(net, z)),
      size: x.reduce((most, v, i) => Math.max(most, Math.abs(xAdv[i] - v)), 0),
    };
  }

  Object.assign(laboratory, { project, uniformStart, pgd, isa, aai, experiment, totalSteps });
});
