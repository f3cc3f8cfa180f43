// Runs the laboratory's own scripts in Node: reads {weights, jobs}, writes one answer a job.
// A job is {what, args}: the name of a function of the laboratory and its arguments, after the network where it has one.
const path = require("node:path");
const { readFileSync } = require("node:fs");

const folder = path.join(__dirname, "../../book/static/laboratory");
for (const file of ["network", "attacks", "runner", "settings"]) require(path.join(folder, `${file}.js`));
const laboratory = {};
for (const part of globalThis.laboratoryParts) part(laboratory);
const OF_A_NETWORK = ["logits", "cam", "experiment", "isa", "detectorScore"];

// JSON has lists of numbers, the laboratory typed arrays.
const typed = (value) => {
  if (Array.isArray(value)) return typeof value[0] === "number" && value.length > 10 ? Float64Array.from(value) : value.map(typed);
  return value && typeof value === "object" ? mapped(value, typed) : value;
};
const plain = (value) => {
  if (ArrayBuffer.isView(value) || Array.isArray(value)) return Array.from(value, plain);
  return value && typeof value === "object" ? mapped(value, plain) : value;
};
const mapped = (value, f) => Object.fromEntries(Object.entries(value).map(([key, v]) => [key, f(v)]));

const { weights, jobs } = JSON.parse(readFileSync(0, "utf8"));
const net = weights && laboratory.loadNetwork(laboratory.decodeFloats(weights));
const answers = jobs.map(({ what, args }) => {
  let answer = laboratory[what](...(OF_A_NETWORK.includes(what) ? [net] : []), ...args.map(typed));
  if (typeof answer?.next !== "function") return plain(answer);
  let step = answer.next(); // an attack pauses after every step
  while (!step.done) step = answer.next();
  return plain(step.value);
});
process.stdout.write(JSON.stringify(answers));
