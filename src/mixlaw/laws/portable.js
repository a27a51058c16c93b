/* Fitted laws in a page; the Python side is laws/portable.py, the scripts stand in the laws' classes.

     const laws = mixlaw.laws(data), out = new Float64Array(laws.size);
     laws.evaluate(mixlaw.at(shares, { num_params, train_tokens, available_tokens }), out);
*/
const mixlaw = (() => {
  "use strict";

  const TYPES = {
    f64: Float64Array, f32: Float32Array, i8: Int8Array, u8: Uint8Array, u16: Uint16Array,
  };

  /* The array of {type: base64}, or the refits of coding.py. */
  const array = (coded) => {
    if ("letters" in coded) return refits(coded);
    if ("f48" in coded) return lengthened(coded.f48);
    const type = Object.keys(TYPES).find((name) => name in coded);
    const bytes = Uint8Array.from(atob(coded[type]), (char) => char.charCodeAt(0));
    return Float64Array.from(new TYPES[type](bytes.buffer));
  };

  /* Doubles without their last two bytes; coding.py, shortened. */
  const lengthened = (text) => {
    const bytes = atob(text), whole = new Uint8Array((bytes.length / 6) * 8);
    for (let k = 0; k < bytes.length; k++) {
      whole[Math.floor(k / 6) * 8 + 2 + (k % 6)] = bytes.charCodeAt(k);
    }
    return new Float64Array(whole.buffer);
  };

  /* Steps from the middle by code of the letter; coding.py, LETTERS. */
  const STEPS = new Int8Array(0x100);
  let step = -70;
  for (let code = 0xc0; code < 0xc0 + 26; code++) STEPS[code] = step++;
  for (let code = 35; code < 127; code++) {
    if (!"&<>\\".includes(String.fromCharCode(code))) STEPS[code] = step++;
  }
  for (let code = 0xc0 + 26; step <= 70; code++) STEPS[code] = step++;

  const refits = ({ letters, ...coded }) => {
    const middle = array(coded.middle), step = array(coded.step), width = step.length;
    return Float64Array.from({ length: letters.length }, (_, k) =>
      middle[k % width] + step[k % width] * STEPS[letters.charCodeAt(k)]);
  };

  /* terms.py bounded_exp */
  const exp = (x) => Math.exp(Math.min(Math.max(x, -60), 60));

  const dot = (a, b) => {
    let sum = 0;
    for (let j = 0; j < a.length; j++) sum += a[j] * b[j];
    return sum;
  };

  const REPETITIONS = 15.39;

  /* Where laws are asked, as points.py: shares (M); counts, null or left out where unknown; unique
     tokens of each domain, Infinity (or null) where they do not run out. */
  const at = (shares, { num_params = null, train_tokens = null, available_tokens = null } = {}) => {
    const known = new Map();
    const once = (key, make) => {
      let value = known.get(key);
      if (value === undefined) known.set(key, (value = make()));
      return value;
    };
    const given = Float64Array.from(shares);
    const r = given.map((share, j) => {
      const epochs = (share * train_tokens) / (available_tokens?.[j] ?? Infinity);
      if (!(epochs > 1)) return share;
      return share * ((1 - REPETITIONS * Math.expm1((1 - epochs) / REPETITIONS)) / epochs);
    });
    return {
      r,
      shares: given,
      num_params: num_params ?? NaN,
      train_tokens: train_tokens ?? NaN,
      once,
      log: (eps) => once(eps, () => r.map((share) => Math.log(share + eps))),
    };
  };

  const scripts = {};

  /* Laws of portable.py's data: evaluate(at, out) writes their values. */
  const laws = (data) => {
    const arrays = data.arrays.map(array);
    const forms = data.forms.map((form) => {
      const constants = { ...form.constants };
      for (const name in form.arrays) constants[name] = arrays[form.arrays[name]];
      return { ...form, constants, make: scripts[form.script] };
    });
    /* The function of a form whose numbers, then its parts', begin at `cursor.next`. */
    const build = (index, numbers, cursor, own) => {
      const form = forms[index];
      if (form.own) own = numbers[cursor.next++];
      const first = cursor.next;
      cursor.next += form.count;
      const theta = numbers.subarray(first, cursor.next);
      const parts = form.parts.map((part) => build(part, numbers, cursor, own));
      return form.make(theta, own, form.constants, parts);
    };
    const values = new Array(data.size);
    for (const { form, rows, numbers } of data.groups) {
      const all = array(numbers), cursor = { next: 0 };
      const count = rows.each ? rows.each.length : rows.count;
      for (let k = 0; k < count; k++) {
        values[rows.each ? rows.each[k] : rows.first + k * rows.step] = build(form, all, cursor, -1);
      }
    }
    const evaluate = (at, out) => {
      for (let b = 0; b < values.length; b++) out[b] = values[b](at);
    };
    return { size: data.size, evaluate };
  };

  /* Links of portable.py's data: evaluate(losses, out) writes the scores. */
  const links = (data) => {
    const numbers = array(data.numbers), curves = data.curves.map((name) => scripts[name]);
    const evaluate = (losses, out) => {
      for (let s = 0; s < data.size; s++) {
        const [floor, span, rate, middle] = numbers.subarray(4 * s, 4 * s + 4);
        let loss = 0;
        for (const [t, share] of data.shares[s]) loss += share * losses[t];
        out[s] = floor + span * curves[s](rate * (middle - loss));
      }
    };
    return { size: data.size, evaluate };
  };

  return { array, at, dot, exp, laws, links, scripts };
})();
