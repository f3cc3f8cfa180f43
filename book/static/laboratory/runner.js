// Runs experiments in slices, in a worker or, where there can be none, in the page itself.
(globalThis.laboratoryParts ??= []).push(function runner(laboratory) {
  "use strict";

  /**
   * Return a function that takes messages: {network, weights} keeps a network, {id, network, ...} is an experiment,
   * which replaces the one that is running. Answers go to `post`: {id, taken} on the way, {id, result, ms} at the end.
   */
  function serve(post, sliceMs) {
    const networks = {};
    let latest = null;
    return (message) => {
      if (message.weights) {
        networks[message.network] = laboratory.loadNetwork(message.weights);
        return;
      }
      const { id } = message, run = laboratory.experiment(networks[message.network], message);
      let ms = 0;
      latest = id;
      const slice = () => {
        if (latest !== id) return;
        const began = performance.now();
        let step;
        do step = run.next();
        while (!step.done && performance.now() - began < sliceMs);
        ms += performance.now() - began;
        post(step.done ? { id, result: step.value, ms } : { id, taken: step.value });
        if (!step.done) setTimeout(slice, 0);
      };
      slice();
    };
  }

  /** Start a worker from the source text of the parts, since a page opened as a file may load no other; or do without. */
  function startRunner(answer) {
    const parts = globalThis.laboratoryParts.filter((part) => ["network", "attacks", "runner"].includes(part.name));
    const inPage = () => {
      const receive = serve(answer, 12);
      return (message) => setTimeout(() => receive(message), 0);
    };
    try {
      const code = `const laboratory = {}; for (const part of [${parts.map(String).join(",\n")}]) part(laboratory);
        const receive = laboratory.serve((message) => postMessage(message), 40);
        onmessage = (event) => receive(event.data);`;
      const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
      const sent = [];
      let send = (message) => {
        sent.push(message);
        worker.postMessage(message);
      };
      worker.onmessage = (event) => answer(event.data);
      worker.onerror = () => {
        send = inPage();
        sent.forEach(send);
      };
      return (message) => send(message);
    } catch {
      return inPage();
    }
  }

  /**
   * Return a function that loads a network by its key, once, and tells the runner, too. Each is a script of its own
   * below `base`, since a page opened as a file may fetch nothing.
   */
  function networkLoader(base, send) {
    const loading = {};
    return (key) => {
      loading[key] ??= new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = `${base}data/network-${key}.js`;
        script.onerror = () => failed(new Error(`The network ${key} could not be loaded.`));
        script.onload = () => {
          const about = globalThis.laboratoryNetworks[key], weights = laboratory.decodeFloats(about.weights);
          send({ network: key, weights });
          done({ ...about, net: laboratory.loadNetwork(weights) });
        };
        document.head.append(script);
      });
      return loading[key];
    };
  }

  Object.assign(laboratory, { serve, startRunner, networkLoader });
});
