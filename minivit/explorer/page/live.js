// The running model, asked from the page: by messages to a worker, or directly where the browser has none.

const PATIENCE = 40;                                     // tenths of a second until silence is a refusal

class Live {
  // `source` is the text of the numeric scripts.
  constructor(source) {
    this.waiting = new Map();
    this.count = 0;
    this.worker = this.startWorker(source);
    this.engine = this.worker ? null : new Engine();
  }

  startWorker(source) {
    try {
      const url = URL.createObjectURL(new Blob([source, "\nserve(self);"], { type: "text/javascript" }));
      const worker = new Worker(url);
      worker.onmessage = ({ data: { started, id, value, error } }) => {
        this.heard = true;
        if (started || worker !== this.worker) return;
        const { resolve, reject } = this.waiting.get(id);
        this.waiting.delete(id);
        if (error) reject(new Error(error));
        else resolve(value);
      };
      // A worker that a policy forbids does not throw: it says so later, or never.
      worker.onerror = () => this.goOnWithout(worker);
      this.listen(worker);
      return worker;
    } catch {
      return null;
    }
  }

  // The first that a worker says is that it started. Silence is waited for in short pieces: a page that is busy
  // itself then does not take its own standstill for the worker's.
  async listen(worker) {
    for (let k = 0; k < PATIENCE && !this.heard; k++) await new Promise((resolve) => setTimeout(resolve, 100));
    if (!this.heard) this.goOnWithout(worker);
  }

  // From here on the page computes itself; what the worker was asked is asked again.
  goOnWithout(worker) {
    if (this.worker !== worker) return;
    worker.terminate();
    this.worker = null;
    this.engine = new Engine();
    for (const { call, argument, resolve, reject } of this.waiting.values()) {
      this.ask(call, argument).then(resolve, reject);
    }
    this.waiting.clear();
  }

  ask(call, argument) {
    if (!this.worker) {
      return new Promise((resolve) => setTimeout(resolve)).then(() => this.engine[call](argument));
    }
    return new Promise((resolve, reject) => {
      const id = this.count++;
      this.waiting.set(id, { call, argument, resolve, reject });
      this.worker.postMessage({ id, call, argument });
    });
  }
}

// Asks for a pass after the other: while one runs, only the newest question waits.
class Latest {
  constructor(run) {
    this.run = run;
    this.running = false;
    this.next = null;
  }

  ask(question) {
    this.next = question;
    if (!this.running) this.work();
  }

  async work() {
    this.running = true;
    while (this.next !== null) {
      const question = this.next;
      this.next = null;
      await this.run(question);
    }
    this.running = false;
  }
}

// What a learner changed, as `forward` takes it. `patches` is [[patch, place], …] or null.
function noChanges() {
  return { patches: null, headsOff: {}, mlpsOff: [], blocksOff: [], uniform: [], temperature: 1, watch: null };
}

function changesFor(changes) {
  const { patches, ...rest } = changes;
  return patches ? { ...rest, patches } : rest;
}

// Switches for blocks, their heads and MLPs, the scores' divisor, and what happens to patches.
function drawSwitches(view, changes, change) {
  const section = document.getElementById("live");
  const { depth, num_heads: numHeads } = view.page.config;
  const rows = Array.from({ length: depth }, (_, block) => {
    const row = document.createElement("tr");
    const cell = (label, on, toggle) => {
      const data = document.createElement("td"), box = document.createElement("input");
      box.type = "checkbox";
      box.checked = on;
      box.setAttribute("aria-label", `${label}, block ${block}`);
      box.autocomplete = "off";
      box.addEventListener("change", () => change(toggle(box.checked)));
      data.append(box);
      row.append(data);
    };
    const list = (name, wanted) => (on) => (
      { [name]: without(changes[name], block).concat(on === wanted ? [block] : []) });
    row.append(words("th", `block ${block}`));
    cell("block", !changes.blocksOff.includes(block), list("blocksOff", false));
    cell("MLP", !changes.mlpsOff.includes(block), list("mlpsOff", false));
    cell("even attention", changes.uniform.includes(block), list("uniform", true));
    for (let head = 0; head < numHeads; head++) {
      const off = changes.headsOff[block] || [];
      cell(`head ${head}`, !off.includes(head), (on) => (
        { headsOff: { ...changes.headsOff, [block]: without(off, head).concat(on ? [] : [head]) } }));
    }
    return row;
  });
  const title = document.createElement("tr"), head = document.createElement("tr");
  title.append(words("td", ""), words("th", "heads"));
  title.firstChild.colSpan = 4;
  title.lastChild.colSpan = numHeads;
  head.append(...["", "on", "MLP", "even", ...Array(numHeads).keys()].map((text) => words("th", text)));
  refill(section.querySelector("table"), title, head, ...rows);
}

function without(list, item) {
  return list.filter((other) => other !== item);
}
