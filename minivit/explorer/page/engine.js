// The model that runs: opened from a checkpoint's bytes, then asked for passes, in a worker if the browser
// has one.

class Engine {
  // Opens a dropped file's bytes, or the weights that rode along; gives what the page says of the model.
  open({ checkpoint, description, weights, kernel }) {
    const file = checkpoint ? readCheckpoint(checkpoint) : { description, tensors: unpack(weights) };
    Object.assign(this, openModel(file.description, file.tensors, kernel));
    const table = this.model.tensors.pos_embed;
    const { config, preprocess, labels, kernel: { name } } = this.model;
    return { positionTable: table ? table.slice() : null, config, preprocess, labels, kernel: name };
  }

  // What the model sees of a photo.
  view({ picture }) {
    return view(picture, this.model.preprocess);
  }

  // A pass over a picture that was viewed before, with what a learner changed.
  run({ picture, changes }) {
    const start = performance.now();
    const pass = forward(this.model, this.arena, normalize(picture, this.model.preprocess), changes);
    return { ...pass, numHeads: this.model.config.num_heads, milliseconds: performance.now() - start };
  }
}

// Tensors of the arrays that rode along: whole numbers with a scale a row, or floats.
function unpack(weights) {
  return Object.fromEntries(Object.entries(weights).map(([name, { values, scales }]) => {
    const width = scales ? values.length / scales.length : 0;
    const read = (out) => {
      for (let k = 0; k < out.length; k++) out[k] = scales ? values[k] * scales[Math.floor(k / width)] : values[k];
    };
    return [name, { length: values.length, read }];
  }));
}

// Says that it started, then answers {id, call, argument} with {id, value} or {id, error}.
function serve(port) {
  const engine = new Engine();
  port.onmessage = ({ data: { id, call, argument } }) => {
    try {
      const value = engine[call](argument);
      port.postMessage({ id, value }, buffersOf(value));
    } catch (error) {
      port.postMessage({ id, error: error.message });
    }
  };
  port.postMessage({ started: true });
}

// Buffers that are moved instead of copied.
function buffersOf(value) {
  return [...(value.attention || []), ...(value.lens || [])].map((array) => array.buffer);
}
