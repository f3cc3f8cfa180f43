// The paper's network Small with its last convolution and its linear layer as one convolution, and what is measured
// of its maps. Numbers are JavaScript's, in double precision; names and equations are those of interp_lib.
//
// Each file adds one function to `laboratoryParts`; the page calls it, and so does the worker, from its source text.
(globalThis.laboratoryParts ??= []).push(function network(laboratory) {
  "use strict";
  const SIDE = 28, PADDED1 = 30, HALF = 14, PADDED2 = 16, U = 7, PIXELS = U * U;
  const C1 = 16, C2 = 32, CLASSES = 10, K = 4, TAIL = 7, Z = PIXELS * C2;
  const SIZES = [C1 * K * K, C1, C2 * C1 * K * K, C2, CLASSES * C2 * TAIL * TAIL, CLASSES];

  /** Read little-endian float32 numbers from base64: a Float32Array. */
  function decodeFloats(base64) {
    return new Float32Array(decodeBytes(base64).buffer);
  }

  function decodeBytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  /** Call visit(q, tap, p) for output pixel q of the tail, filter element tap and the input pixel p that it reads. */
  function eachTap(visit) {
    for (let q = 0; q < PIXELS; q++) {
      const qy = Math.floor(q / U), qx = q % U;
      for (let ky = 0; ky < TAIL; ky++) {
        for (let kx = 0; kx < TAIL; kx++) {
          const py = qy + ky - 3, px = qx + kx - 3;
          if (py >= 0 && py < U && px >= 0 && px < U) visit(q, ky * TAIL + kx, py * U + px);
        }
      }
    }
  }

  /**
   * Build a network from its numbers: conv1 (16, 1, 4, 4), its biases, conv2 (32, 16, 4, 4), its biases, and the tail,
   * conv3 and classifier in one, (10, 32, 7, 7), its biases; all in PyTorch's order.
   */
  function loadNetwork(numbers) {
    if (numbers.length !== SIZES.reduce((a, b) => a + b)) throw new Error(`not a network: ${numbers.length} numbers`);
    let from = 0;
    const [conv1, b1, conv2, b2, conv3, b3] = SIZES.map((n) => Float64Array.from(numbers.subarray(from, (from += n))));
    // Channels last: the inner loops run over neighbours in memory.
    const w1 = new Float64Array(conv1.length), w2 = new Float64Array(conv2.length), w3 = new Float64Array(conv3.length);
    for (let o = 0; o < C1; o++) for (let tap = 0; tap < K * K; tap++) w1[tap * C1 + o] = conv1[o * K * K + tap];
    for (let o = 0; o < C2; o++) {
      for (let i = 0; i < C1; i++) {
        for (let tap = 0; tap < K * K; tap++) w2[(tap * C1 + i) * C2 + o] = conv2[(o * C1 + i) * K * K + tap];
      }
    }
    for (let c = 0; c < CLASSES; c++) {
      for (let i = 0; i < C2; i++) {
        for (let tap = 0; tap < PIXELS; tap++) w3[(c * PIXELS + tap) * C2 + i] = conv3[(c * C2 + i) * PIXELS + tap];
      }
    }
    // f(x) = M vec(z) + m: the tail averaged over its output pixels.
    const M = new Float64Array(CLASSES * Z);
    for (let c = 0; c < CLASSES; c++) {
      eachTap((q, tap, p) => {
        for (let i = 0; i < C2; i++) M[c * Z + p * C2 + i] += w3[(c * PIXELS + tap) * C2 + i] / PIXELS;
      });
    }
    const x0 = new Float64Array(PADDED1 * PADDED1), z1 = new Float64Array(PADDED2 * PADDED2 * C1);
    return { w1, b1, w2, b2, w3, b3, M, x0, z1, z2: new Float64Array(Z), dz1: new Float64Array(z1.length) };
  }

  /** Compute eight channels of conv2 at one pixel, (y, i), in eight local sums: half the time of one loop over all. */
  function convolve8({ w2, b2, z1, z2 }, y, i, block, at) {
    let a = b2[block], b = b2[block + 1], c = b2[block + 2], d = b2[block + 3];
    let e = b2[block + 4], f = b2[block + 5], g = b2[block + 6], h = b2[block + 7];
    for (let ky = 0; ky < K; ky++) {
      let from = ((2 * y + ky) * PADDED2 + 2 * i) * C1, k = ky * K * C1 * C2 + block;
      // The four elements of a filter's row read neighbours: one run of 4 x 16 numbers.
      for (const end = from + K * C1; from < end; from++, k += C2) {
        const v = z1[from];
        if (v === 0) continue;
        a += v * w2[k];
        b += v * w2[k + 1];
        c += v * w2[k + 2];
        d += v * w2[k + 3];
        e += v * w2[k + 4];
        f += v * w2[k + 5];
        g += v * w2[k + 6];
        h += v * w2[k + 7];
      }
    }
    z2[at] = a;
    z2[at + 1] = b;
    z2[at + 2] = c;
    z2[at + 3] = d;
    z2[at + 4] = e;
    z2[at + 5] = f;
    z2[at + 6] = g;
    z2[at + 7] = h;
  }

  /** Return sum_i a[i + from] b[i + k] over n numbers, n a multiple of 4, in four sums side by side. */
  function dot(a, from, b, k, n) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (let i = 0; i < n; i += 4) {
      s0 += a[from + i] * b[k + i];
      s1 += a[from + i + 1] * b[k + i + 1];
      s2 += a[from + i + 2] * b[k + i + 2];
      s3 += a[from + i + 3] * b[k + i + 3];
    }
    return s0 + s1 + s2 + s3;
  }

  /** Compute z = relu(conv2(relu(conv1(x)))), (7, 7, 32); it stays in the network until the next call. */
  function trunk(net, x) {
    const { w1, b1, w2, b2, x0, z1, z2 } = net;
    for (let y = 0; y < SIDE; y++) for (let i = 0; i < SIDE; i++) x0[(y + 1) * PADDED1 + i + 1] = x[y * SIDE + i];
    for (let y = 0; y < HALF; y++) {
      for (let i = 0; i < HALF; i++) {
        const at = ((y + 1) * PADDED2 + i + 1) * C1;
        for (let o = 0; o < C1; o++) z1[at + o] = b1[o];
        for (let tap = 0; tap < K * K; tap++) {
          const v = x0[(2 * y + (tap >> 2)) * PADDED1 + 2 * i + (tap & 3)];
          if (v !== 0) for (let o = 0; o < C1; o++) z1[at + o] += v * w1[tap * C1 + o];
        }
        for (let o = 0; o < C1; o++) if (z1[at + o] < 0) z1[at + o] = 0;
      }
    }
    for (let y = 0; y < U; y++) {
      for (let i = 0; i < U; i++) {
        const at = (y * U + i) * C2;
        for (let block = 0; block < C2; block += 8) convolve8(net, y, i, block, at + block);
        for (let o = 0; o < C2; o++) if (z2[at + o] < 0) z2[at + o] = 0;
      }
    }
    return z2;
  }

  /** Return the derivative with respect to x, (784), from that with respect to z; `trunk` has seen x last. */
  function trunkGradient(net, dz2) {
    const { w1, w2, z1, z2, dz1 } = net, dx0 = new Float64Array(PADDED1 * PADDED1), dx = new Float64Array(SIDE * SIDE);
    dz1.fill(0);
    for (let y = 0; y < U; y++) {
      for (let i = 0; i < U; i++) {
        const at = (y * U + i) * C2;
        for (let o = 0; o < C2; o++) if (!(z2[at + o] > 0)) dz2[at + o] = 0;
        for (let tap = 0; tap < K * K; tap++) {
          const base = ((2 * y + (tap >> 2)) * PADDED2 + 2 * i + (tap & 3)) * C1;
          for (let c = 0; c < C1; c++) {
            if (z1[base + c] > 0) dz1[base + c] += dot(dz2, at, w2, (tap * C1 + c) * C2, C2);
          }
        }
      }
    }
    for (let y = 0; y < HALF; y++) {
      for (let i = 0; i < HALF; i++) {
        const at = ((y + 1) * PADDED2 + i + 1) * C1;
        for (let tap = 0; tap < K * K; tap++) {
          dx0[(2 * y + (tap >> 2)) * PADDED1 + 2 * i + (tap & 3)] += dot(dz1, at, w1, tap * C1, C1);
        }
      }
    }
    for (let y = 0; y < SIDE; y++) for (let i = 0; i < SIDE; i++) dx[y * SIDE + i] = dx0[(y + 1) * PADDED1 + i + 1];
    return dx;
  }

  function logitsOf(net, z) {
    return net.b3.map((bias, c) => bias + dot(net.M, c * Z, z, 0, Z));
  }

  function camsOf(net, z, classes) {
    return classes.map((c) => {
      const map = new Float64Array(PIXELS).fill(net.b3[c] / PIXELS);
      eachTap((q, tap, p) => {
        map[q] += dot(z, p * C2, net.w3, (c * PIXELS + tap) * C2, C2) / PIXELS;
      });
      return map;
    });
  }

  /** Logits f(x), (10). */
  const logits = (net, x) => logitsOf(net, trunk(net, x));

  /** Class activation maps of some classes, eq. (1), each (49): they sum to the logits. */
  const cam = (net, x, classes) => camsOf(net, trunk(net, x), classes);

  /** Both from one pass: {logits, maps}. */
  function explain(net, x, classes) {
    const z = trunk(net, x);
    return { logits: logitsOf(net, z), maps: camsOf(net, z, classes) };
  }

  /** Return the derivative with respect to x of a function of logits and maps, from those by them; after `explain`. */
  function inputGradient(net, dLogits, dMaps = [], classes = []) {
    const dz = new Float64Array(Z);
    dLogits.forEach((d, c) => {
      if (d !== 0) for (let i = 0; i < Z; i++) dz[i] += d * net.M[c * Z + i];
    });
    dMaps.forEach((d, j) => {
      eachTap((q, tap, p) => {
        const v = d[q] / PIXELS;
        if (v === 0) return;
        for (let i = 0, k = (classes[j] * PIXELS + tap) * C2; i < C2; i++) dz[p * C2 + i] += v * net.w3[k + i];
      });
    });
    return trunkGradient(net, dz);
  }

  function softmax(f) {
    const top = Math.max(...f), e = f.map((v) => Math.exp(v - top)), sum = e.reduce((a, b) => a + b);
    return e.map((v) => v / sum);
  }

  const argmax = (f, but = -1) => f.reduce((best, v, c) => (c !== but && (best < 0 || v > f[best]) ? c : best), -1);

  /** f_c - max_{j != c} f_j: positive where c is the prediction. */
  const margin = (f, c) => f[c] - f[argmax(f, c)];

  /** D(x, x'), eq. (3): the mean over the classes of the l1 distance of their maps; eq. (4) for t and t'. */
  function discrepancy(maps, mapsAdv) {
    const norm = (a, b) => a.reduce((sum, v, i) => sum + Math.abs(b[i] - v), 0);
    return maps.reduce((sum, map, j) => sum + norm(map, mapsAdv[j]), 0) / maps.length;
  }

  /** Kendall's tau-b of two maps; NaN where a map is constant. */
  function kendallTau(a, b) {
    let order = 0, untiedA = 0, untiedB = 0;
    for (let i = 1; i < a.length; i++) {
      for (let j = 0; j < i; j++) {
        const da = Math.sign(a[i] - a[j]), db = Math.sign(b[i] - b[j]);
        order += da * db;
        untiedA += da * da;
        untiedB += db * db;
      }
    }
    return order / Math.sqrt(untiedA) / Math.sqrt(untiedB);
  }

  /** 1/2 (f_t(x) - f_t'(x)), eq. (5): no successful attack has a smaller 2-class discrepancy. */
  const proposition1Bound = (f, t, tPrime) => (f[t] - f[tPrime]) / 2;

  /** The mean of every pixel's 3 x 3 neighbourhood; at the edge the last pixels are repeated. */
  function smoothed(z) {
    const inside = (v) => Math.min(Math.max(v, 0), SIDE - 1);
    return Float64Array.from(z, (_, at) => {
      const y = Math.floor(at / SIDE), x = at % SIDE;
      let sum = 0;
      for (const row of [y - 1, y, y + 1]) {
        for (const column of [x - 1, x, x + 1]) sum += z[inside(row) * SIDE + inside(column)];
      }
      return sum / 9;
    });
  }

  /** What the detector sees in z: D between the maps of z and of smoothed(z), of the two likeliest classes. */
  function detectorScore(net, z) {
    const f = logits(net, z), first = argmax(f), classes = [first, argmax(f, first)];
    return discrepancy(cam(net, z, classes), cam(net, smoothed(z), classes));
  }

  Object.assign(laboratory, { decodeBytes, decodeFloats, loadNetwork, logits, cam, explain, inputGradient });
  Object.assign(laboratory, { softmax, argmax, margin, discrepancy, kendallTau, proposition1Bound });
  Object.assign(laboratory, { smoothed, detectorScore });
});
