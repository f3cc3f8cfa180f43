// Runs the laboratory's own scripts in Node: reads {network, jobs} as JSON, writes one answer a job.
// The network is a key of the laboratory's table, or {weights: base64}. A job names a function of the laboratory.
const path = require("node:path");
const { readFileSync } = require("node:fs");

const folder = path.join(__dirname, "../../book/static/laboratory");
for (const file of ["network", "attacks", "runner"]) require(path.join(folder, `${file}.js`));
const laboratory = {};
for (const part of globalThis.laboratoryParts) part(laboratory);

const { network, jobs } = JSON.parse(readFileSync(0, "utf8"));
if (typeof network === "string") require(path.join(folder, "data", `network-${network}.js`));
const { weights } = typeof network === "string" ? globalThis.laboratoryNetworks[network] : network;
const net = laboratory.loadNetwork(laboratory.decodeFloats(weights));

const plain = (value) => {
  if (ArrayBuffer.isView(value)) return Array.from(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return Number.isNaN(value) ? null : value;
};

function finished(run) {
  let step = run.next();
  while (!step.done) step = run.next();
  return step.value;
}

const answers = jobs.map(({ what, args }) => {
  const began = performance.now();
  const read = args.map((value) => (Array.isArray(value) && typeof value[0] === "number" ? Float64Array.from(value) : value));
  if (read[0]?.x) for (const key of ["x", "start"]) if (read[0][key]) read[0][key] = Float64Array.from(read[0][key]);
  const pure = ["kendallTau", "smoothed", "uniformStart"].includes(what);
  let answer = pure ? laboratory[what](...read) : laboratory[what](net, ...read);
  if (typeof answer?.next === "function") answer = finished(answer);
  return { answer: plain(answer), ms: performance.now() - began };
});
process.stdout.write(JSON.stringify(answers));
