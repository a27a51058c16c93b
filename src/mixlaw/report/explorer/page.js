// The explorer's page: one state, one `render`. The numbers come from the engine (engine.js); names
// are written as text, never as HTML.
(() => {
  "use strict";

  const AXES = { num_params: "Parameters", train_tokens: "Training tokens" };

  // Numbers and names as people read them

  const MOST_NAMED = 3;
  const SAME = 5e-5; // rounds to zero in what is shown
  const minus = (text) => text.replace(/^-(?=0(\.0*)?$)/, "").replace("-", "−"); // and no −0
  const fixed = (number) => (Number.isFinite(number) ? minus(number.toFixed(4)) : "unknown");
  const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)}%`;
  const rough = (share) => percent(share, share >= 0.0995 ? 0 : share >= 0.00995 ? 1 : 2);
  const chanceWords = (chance) =>
    chance > 0.995 ? ">99%" : chance < 0.005 ? "<1%" : percent(chance, 0);
  const isolated = (name) => `\u2068${name}\u2069`; // keeps a name's direction of writing in it
  const count = (number) => {
    if (number < 1e7) return number.toLocaleString("en-US", { maximumFractionDigits: 0 });
    const units = [["T", 1e12], ["B", 1e9], ["M", 1e6]];
    const [letter, unit] = units.find(([, size]) => number >= 0.9995 * size);
    return Number((number / unit).toPrecision(3)) + letter;
  };

  // Four equal round steps that hold low to high.
  const axisAround = (low, high) => {
    if (!(high - low > 1e-6)) [low, high] = [low - 0.01, high + 0.01];
    const size = 10 ** Math.floor(Math.log10((high - low) / 4));
    const factor = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20].find(
      (one) => Math.floor(low / (one * size)) * one * size + 4 * one * size >= high,
    );
    const step = factor * size;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (factor % 1 ? 1 : 0));
    return { from: Math.floor(low / step) * step, step, digits };
  };

  // Writing into the page: what stands there already is not written again

  const written = new WeakMap();
  const write = (element, text) => {
    if (written.get(element) === text) return;
    written.set(element, text);
    element.textContent = text;
  };
  const attribute = (element, name, text) => {
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  };
  // Moves, and stretches, an element that is as wide as its axis; in parts of the axis.
  const put = (element, from, to) => {
    const stretch = to === undefined ? "" : ` scaleX(${(to - from).toFixed(5)})`;
    const transform = `translateX(${(100 * from).toFixed(3)}%)${stretch}`;
    if (written.get(element) === transform) return;
    written.set(element, transform);
    element.style.transform = transform;
  };
  const make = (tag, settings = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), settings);
    element.append(...inside);
    return element;
  };
  const $ = (id) => document.getElementById(id);
  const clone = (template) => $(template).content.firstElementChild.cloneNode(true);

  mixlaw.page = (data) => {
    const engine = mixlaw.engine(data);
    const recommended = data.presets.find((preset) => preset.kind === "recommended");
    const state = {
      shares: Array.from(recommended.shares),
      locked: data.domains.map(() => false),
      scale: { ...engine.target },
      trainer: 0,
      grip: null, // {j, from}: the domain that is moved, and the shares when that began
    };
    // Of the present scale: the limits, and what is forecast of the recommended mixture.
    let limits, reference;
    let frame = 0, timer = 0;

    // What a user can do

    const changed = () => {
      frame ||= requestAnimationFrame(render);
      clearTimeout(timer);
      timer = setTimeout(rest, 400);
    };
    const tell = (text) => write($("x-told"), text);

    // Each step of a drag starts from the shares before the drag, so that going back undoes it.
    const move = (j, wanted) => {
      if (state.grip?.j !== j) state.grip = { j, from: state.shares };
      const share = Math.min(1, Math.max(0, wanted));
      state.shares = engine.move(state.grip.from, state.locked, j, share, limits);
      const stopped = Math.abs(state.shares[j] - share) > 1e-6;
      const at = `${isolated(data.domains[j])} stops at ${percent(state.shares[j])}`;
      tell(stopped ? `${at}: a limit, its own or of those that would have to give way.` : "");
      changed();
    };
    const toggleLock = (j) => {
      state.locked[j] = !state.locked[j];
      state.grip = null;
      changed();
    };
    const usePreset = (preset) => {
      state.shares = Array.from(preset.shares);
      state.locked.fill(false);
      state.grip = null;
      tell("");
      changed();
    };
    const setScale = (scale) => {
      Object.assign(state.scale, scale);
      state.grip = null;
      limits = engine.limits(state.scale);
      reference = engine.forecast(recommended.shares, state.scale);
      changed();
    };
    const restore = () => {
      if (!location.hash.startsWith(mixlaw.link.start)) return;
      $("explorer").scrollIntoView();
      try {
        Object.assign(state, mixlaw.link.decode(data, location.hash));
      } catch (error) {
        tell(error.message);
        return;
      }
      tell("");
      setScale({});
    };
    const copy = async (element) => {
      rest();
      try {
        await navigator.clipboard.writeText(element.value ?? element.textContent);
        tell("Copied.");
      } catch {
        // A page from disk may have no clipboard, or may not use it.
        if (element.select) element.select();
        else getSelection().selectAllChildren(element);
        tell("Selected: copy it with Ctrl+C or ⌘C.");
      }
    };

    // Built once

    const most = data.presets.flatMap((preset) => Array.from(preset.shares));
    most.push(...engine.limits(engine.target).high);
    const top = Math.min(100, 5 * Math.ceil(20 * Math.max(...most) - 1e-9)); // of a slider, percent
    const along = (share) => Math.min(1, (100 * share) / top);

    const domainRow = (name, j) => {
      const row = clone("x-domain-row");
      const part = (selector) => row.querySelector(selector);
      const [slider, number] = row.querySelectorAll("input");
      const lock = part(".x-lock");
      row.setAttribute("aria-label", isolated(name));
      lock.setAttribute("aria-label", `Lock ${isolated(name)}`);
      lock.onclick = () => toggleLock(j);
      slider.max = top;
      slider.setAttribute("aria-label", `Share of ${isolated(name)}`);
      slider.oninput = () => move(j, slider.valueAsNumber / 100);
      number.setAttribute("aria-label", `Share of ${isolated(name)} in percent`);
      number.onchange = () => {
        if (Number.isFinite(number.valueAsNumber)) move(j, number.valueAsNumber / 100);
        changed();
      };
      part("bdi").textContent = part(".x-name").title = name;
      put(part(".x-was"), along(recommended.shares[j]));
      put(part(".x-trained"), along(data.trained_range.low[j]), along(data.trained_range.high[j]));
      $("x-domains").append(row);
      const parts = ["small", ".x-room", ".x-fill", ".x-epochs"].map(part);
      const [beyond, room, fill, epochs] = parts;
      return { row, slider, number, lock, beyond, room, fill, epochs };
    };

    const targetRow = (i) => {
      const row = clone("x-target-row");
      const { label, weight, higher_is_better } = data.targets[i];
      const [head, axis, valueCell, changeCell] = row.children;
      head.firstElementChild.textContent = head.title = label;
      if (weight > 0) head.lastElementChild.textContent = percent(weight, 0);
      $("x-targets").append(row);
      const [bar, was, dot] = axis.firstElementChild.children;
      const [value, half] = valueCell.children;
      const [change, sense, shift] = changeCell.children;
      const better = higher_is_better ? 1 : -1;
      return { i, better, bar, was, dot, value, half, changeCell, change, sense, shift };
    };

    // Targets of one unit share an axis; in it, those of the objective come first.
    const targetGroup = (unit) => {
      const head = clone("x-target-heads");
      head.firstElementChild.textContent = unit;
      $("x-targets").append(head);
      const members = [...data.targets.keys()].filter((i) => data.targets[i].unit === unit);
      const counts = (i) => (data.targets[i].weight > 0 ? 0 : 1);
      members.sort((a, b) => counts(a) - counts(b));
      return { ticks: head.querySelectorAll(".x-tick"), rows: members.map(targetRow) };
    };

    const presetButton = (preset) => {
      const inside = make("bdi", { textContent: preset.name });
      const button = make("button", { type: "button", onclick: () => usePreset(preset) }, inside);
      $("x-best").before(button);
      return { button, preset };
    };

    const scaleRow = (axis) => {
      const row = clone("x-scale-row");
      const [label, output, slider, home] = row.children;
      const { values, target } = data.scale[axis];
      label.textContent = AXES[axis];
      label.htmlFor = slider.id = `x-${axis}`;
      slider.max = values.length - 1;
      slider.oninput = () => setScale({ [axis]: slider.valueAsNumber });
      home.onclick = () => setScale({ [axis]: target });
      home.setAttribute("aria-label", `${AXES[axis]}: back to the target`);
      $("x-scales").append(row);
      return { axis, values, target, output, slider, home };
    };

    const againstRow = ({ name }) => {
      const [gain, side, bdi, chance] = ["b", "span", "bdi", "span"].map((tag) => make(tag));
      const refits = make("span", { className: "x-refits" });
      const row = make("li", {}, gain, " ", side, " ", bdi, " ", make("small", {}, chance, refits));
      bdi.textContent = name;
      $("x-against").append(row);
      return { row, gain, side, chance, refits };
    };

    const domains = data.domains.map(domainRow);
    const groups = [...new Set(data.targets.map((target) => target.unit))].map(targetGroup);
    const presets = data.presets.filter((preset) => preset.kind !== "best").map(presetButton);
    const scales = Object.keys(AXES)
      .filter((axis) => data.scale[axis]?.values.length > 1)
      .map(scaleRow);
    const against = new Map(); // name -> row

    const bests = data.presets.filter((preset) => preset.kind === "best");
    const option = (text, k) => make("option", { textContent: isolated(text), value: k });
    const labels = new Map(data.targets.map(({ name, label }) => [name, label]));
    $("x-best").append(...bests.map(({ target }, k) => option(labels.get(target), k)));
    $("x-best").hidden = !bests.length;
    $("x-best").onchange = ({ target }) => target.value && usePreset(bests[target.value]);
    $("x-trainer").append(...data.trainers.map((trainer, k) => option(trainer.name, k)));
    $("x-trainer").onchange = ({ target }) => {
      state.trainer = Number(target.value);
      changed();
    };
    $("x-trainers").hidden = !data.trainers.length;
    for (const name of ["link", "command", "snippet"]) {
      $(`x-copy-${name}`).onclick = () => copy($(`x-${name}`));
    }
    write($("x-objective-name"), data.objective.words);
    write($("x-level"), percent(data.level, 0));
    const refits = `the ${data.draws.count} refits only which runs there were.`;
    const counts = "How sure it is counts all errors of forecasts of held-out mixtures";
    const draws = data.draws.count ? `${counts}, ${refits}` : `${counts}.`;
    write($("x-draws"), `${draws} ${data.draws.note ?? ""}`.trim());

    // Drawn at each change

    function render() {
      frame = 0;
      const found = engine.forecast(state.shares, state.scale);
      drawShares(found);
      drawTargets(found);
      drawObjective(found);
      drawPlace(found);
      drawControls();
    }

    function drawShares({ epochs, outside }) {
      const units = mixlaw.apportion(state.shares, 10000); // so that what is shown sums to 100%
      const beyond = new Map(
        outside.map(({ domain, share, low }) => [domain, share < low ? "below" : "above"]),
      );
      domains.forEach((row, j) => {
        const text = (units[j] / 100).toFixed(2);
        const seen = epochs && Number.isFinite(epochs[j]) ? epochs[j].toFixed(2) : "";
        const cap = data.bounds.max_epochs[j];
        const capped = seen && cap !== null ? ` / ${Number(cap.toPrecision(4))}` : "";
        const over = capped && epochs[j] > cap * (1 + 1e-9);
        row.slider.value = 100 * state.shares[j];
        if (row.number.value !== text) row.number.value = text;
        row.slider.disabled = row.number.disabled = state.locked[j];
        attribute(row.slider, "aria-valuetext", `${text} percent${seen && `, ${seen} epochs`}`);
        attribute(row.lock, "aria-pressed", String(state.locked[j]));
        put(row.room, along(limits.low[j]), along(limits.high[j]));
        put(row.fill, 0, along(state.shares[j]));
        write(row.epochs, `${seen}${capped}${over ? " ✗" : ""}`);
        row.row.classList.toggle("x-over", Boolean(over));
        write(row.beyond, beyond.get(data.domains[j]) ?? "");
      });
      const unknown = domains.every(({ epochs }) => !epochs.textContent);
      $("x-domains").classList.toggle("x-no-epochs", unknown);
      write($("x-sum"), (units.reduce((a, b) => a + b, 0) / 100).toFixed(2));
    }

    function drawTargets(found) {
      for (const { ticks, rows } of groups) {
        const ends = rows.flatMap(({ i }) =>
          [found, reference].flatMap(({ values, halves }) => {
            const half = Number.isFinite(halves[i]) ? halves[i] : 0;
            return [values[i] - half, values[i] + half];
          }),
        );
        const { from, step, digits } = axisAround(Math.min(...ends), Math.max(...ends));
        const at = (value) => (value - from) / (4 * step);
        const changes = rows.map(({ i }) => Math.abs(found.values[i] - reference.values[i]));
        const most = Math.max(SAME, ...changes); // makes the longest bar of a change
        ticks.forEach((tick, k) => write(tick, minus((from + k * step).toFixed(digits))));
        for (const row of rows) {
          const [value, half] = [found.values[row.i], found.halves[row.i]];
          const apart = value - reference.values[row.i];
          const mood = Math.abs(apart) < SAME ? "" : apart * row.better > 0 ? "good" : "bad";
          const known = Number.isFinite(half);
          put(row.bar, known ? at(value - half) : 0, known ? at(value + half) : 1);
          put(row.dot, at(value));
          put(row.was, at(reference.values[row.i]));
          put(row.shift, 0.5, 0.5 + apart / most / 2);
          write(row.value, fixed(value));
          write(row.half, `± ${fixed(half)}`);
          write(row.change, mood ? (apart > 0 ? "+" : "") + fixed(apart) : "same");
          write(row.sense, { good: "better", bad: "worse", "": "" }[mood]);
          attribute(row.changeCell, "class", `x-change ${mood}`);
        }
      }
    }

    function drawObjective(found) {
      write($("x-objective"), fixed(found.objective.value));
      write($("x-objective-half"), `± ${fixed(found.objective.half)}`);
      for (const one of found.against) {
        if (!against.has(one.name)) against.set(one.name, againstRow(one));
        const { row, gain, side, chance, refits } = against.get(one.name);
        const mood = Math.abs(one.gain) < SAME ? "" : one.gain > 0 ? "good" : "bad";
        write(gain, mood ? fixed(Math.abs(one.gain)) : "same");
        attribute(gain, "class", mood);
        write(side, { good: "lower than", bad: "HIGHER than", "": "as" }[mood]);
        write(chance, mood && `${chanceWords(one.chance)} sure to be lower`);
        const drawn = mood && one.refits;
        const times = drawn && `${one.refits.lower} of ${one.refits.of}`;
        write(refits, drawn ? `; lower in ${times} refits of the law to resampled runs` : "");
      }
    }

    // The rest of the report is about the target; of larger scales only this page tells.
    const isBeyond = (axis) => state.scale[axis] > (data.scale[axis]?.target ?? Infinity);

    function drawPlace({ distance, outside, violations }) {
      const { nearest, typical, largest, label, far } = distance;
      const [own, median, widest] = [nearest, typical, largest].map((size) => size.toFixed(2));
      const theirs = `trained ones lie ${median} from theirs in the median, ${widest} at most`;
      write($("x-distance"), `This mixture is ${label}: Hellinger distance ${own}; ${theirs}.`);
      const by = ({ share, low, high }) => Math.max(low - share, share - high);
      const ranges = [...outside]
        .sort((a, b) => by(b) - by(a))
        .slice(0, MOST_NAMED)
        .map(({ domain, low, high }) => `${isolated(domain)} (${rough(low)} to ${rough(high)})`);
      if (outside.length > MOST_NAMED) ranges.push(`${outside.length - MOST_NAMED} more`);
      const beyond = ranges.length ? `Outside the trained range: ${ranges.join(", ")}. ` : "";
      const larger = Object.keys(AXES).filter(isBeyond);
      const named = larger.map((axis) => AXES[axis].toLowerCase()).join(" or ");
      const scale = larger.length ? `More ${named} than the study asks about.` : "";
      attribute($("x-distance"), "class", far ? "unclear" : "");
      write($("x-beyond"), beyond + scale);
      if (written.get($("x-violations")) !== violations.join("\n")) {
        written.set($("x-violations"), violations.join("\n"));
        const lines = violations.map((text) => make("li", { textContent: text }));
        $("x-violations").replaceChildren(...lines);
      }
    }

    function drawControls() {
      $("x-trainer").value = state.trainer;
      const near = (a, b) => Math.abs(a - b) < 2e-9; // links round
      const isNow = (preset) => state.shares.every((share, j) => near(share, preset.shares[j]));
      for (const { button, preset } of presets) {
        attribute(button, "aria-pressed", String(isNow(preset)));
      }
      $("x-best").selectedIndex = 1 + bests.findIndex(isNow); // the first one says "best for"
      for (const { axis, values, target, output, slider, home } of scales) {
        const index = state.scale[axis];
        slider.value = index;
        write(output, count(values[index]));
        const spoken = `${count(values[index])}${index === target ? ", the target" : ""}`;
        attribute(slider, "aria-valuetext", spoken);
        home.disabled = index === target;
      }
    }

    // What can wait until a drag rests: links and texts to copy.
    function drawTexts() {
      const trainer = data.trainers[state.trainer];
      $("x-link").value = location.href.split("#")[0] + mixlaw.link.encode(data, state);
      $("x-command").value = mixlaw.command(data, trainer, state.shares);
      if (!trainer) return;
      const { name, what, why, file, unit, notes = [] } = trainer;
      $("x-snippet").hidden = $("x-copy-snippet").hidden = Boolean(why);
      const says = why ? [why] : [`${file}; its weights count ${unit}s.`, ...notes];
      write($("x-notes"), [`${name}: ${what}.`, ...says].join(" "));
      if (!why) {
        const shares = Object.fromEntries(data.domains.map((one, j) => [one, state.shares[j]]));
        write($("x-snippet"), mixlaw.snippet(trainer, shares));
      }
    }

    function rest() {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      render();
      drawTexts();
      const compared = Array.from($("x-against").children, (row) => row.textContent);
      const words = [$("x-objective").textContent, $("x-objective-half").textContent].join(" ");
      write($("x-heard"), [words, ...compared].join("; "));
      history.replaceState(null, "", $("x-link").value);
    }

    // Browsers compile what has run a few times: better now than while a slider is dragged.
    const warm = (times) => {
      render();
      if (times > 1) setTimeout(warm, 0, times - 1);
    };

    $("x").hidden = false;
    $("x-off").hidden = true;
    setScale({});
    clearTimeout(timer); // nothing has happened yet that a link should tell
    drawTexts();
    restore();
    addEventListener("hashchange", restore);
    setTimeout(warm, 0, 10);
    mixlaw.explorer = { engine, state }; // for the browser's console
  };

  mixlaw.page(JSON.parse($("explorer-data").textContent));
})();
