// Mixtures as texts: in whole units, as a trainer's config, as a command and as a link.
(() => {
  "use strict";

  // Shares as texts

  // `total` units by largest remainder, at least one to each share above zero; in the order of
  // interop/handover.py's `apportion`, so that ties fall as they do in Python.
  mixlaw.apportion = (shares, total) => {
    const counts = Array.from(shares, () => 0);
    const given = [...counts.keys()].filter((j) => shares[j] > 0);
    if (given.length > total) {
      throw new RangeError(`${given.length} shares above zero, and ${total} units to give`);
    }
    const whole = given.reduce((sum, j) => sum + shares[j], 0);
    const exact = Array.from(shares, (share) => (share / whole) * total);
    for (const j of given) counts[j] = Math.max(1, Math.floor(exact[j] + 1e-9));
    for (let left = total - counts.reduce((a, b) => a + b, 0); left !== 0; ) {
      const step = Math.sign(left);
      const cost = (j) => step * (exact[j] - counts[j]);
      const ready = given.filter((j) => step > 0 || counts[j] > 1);
      const chosen = ready.reduce((best, j) => (cost(j) > cost(best) ? j : best));
      counts[chosen] += step;
      left -= step;
    }
    return counts;
  };

  // A trainer's config; the twin of Python's `Snippet.text`. `shares`: domain -> share.
  mixlaw.snippet = (trainer, shares) => {
    const { entries, parts, after, total, digits } = trainer;
    const counts = mixlaw.apportion(entries.map(([name, factor]) => shares[name] * factor), total);
    const weights = counts.map((n) => (digits > 0 ? (n / total).toFixed(digits) : String(n)));
    const part = ({ before, lines, between }) => {
      const kept = [...lines.keys()].filter((i) => counts[i] > 0 && lines[i].length > 0);
      return before + kept.map((i) => lines[i].join(weights[i])).join(between);
    };
    return parts.map(part).join("") + after;
  };

  const quoted = (word) =>
    /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;

  // The command that exports a mixture, or why none can be typed.
  mixlaw.command = (data, trainer, shares) => {
    const units = mixlaw.apportion(shares, 1e6);
    const named = data.domains.filter((_, j) => units[j] > 0);
    const wrong = named.find((name) => /[=,\p{C}\p{Zl}\p{Zp}]|^\s|\s$|^$/u.test(name));
    if (wrong !== undefined) {
      return `none: the name ${JSON.stringify(wrong)} cannot be typed in a list of name=share`;
    }
    const parts = data.domains.map((name, j) => `${name}=${(units[j] / 1e6).toFixed(6)}`);
    const mixture = quoted(parts.filter((_, j) => units[j] > 0).join(","));
    const to = trainer ? ` --to ${trainer.name}` : "";
    return `mixlaw export ${quoted(data.study)}${to} --mixture ${mixture}`;
  };

  // The state as a link: #mix=version~study~shares~locked~params~tokens~trainer

  const LINK = "#mix=";
  const VERSION = "1";
  const LINK_UNITS = 1e9; // shares are whole numbers of these, in base 36
  const LONGEST_LINK = 20000;
  const AXES = ["num_params", "train_tokens"];

  // Tells studies apart by their domains: FNV-1a of their names.
  const fingerprint = (domains) => {
    const text = JSON.stringify(domains);
    let hash = 0x811c9dc5;
    for (let i = 0; i < text.length; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    }
    return (hash >>> 0).toString(36);
  };

  const encode = (data, state) => {
    const listed = (numbers) => numbers.map((number) => number.toString(36)).join(".");
    const locked = [...state.locked.keys()].filter((j) => state.locked[j]);
    const scale = AXES.map((axis) => data.scale[axis]?.values[state.scale[axis]] ?? "");
    const shares = listed(mixlaw.apportion(state.shares, LINK_UNITS));
    const trainer = data.trainers[state.trainer]?.name ?? "";
    const parts = [VERSION, fingerprint(data.domains), shares, listed(locked), ...scale, trainer];
    return LINK + parts.join("~");
  };

  // The state of a link. Throws: RangeError: why it is none of this page.
  const decode = (data, hash) => {
    const refuse = (why) => {
      throw new RangeError(`The mixture of the link was not taken: ${why}.`);
    };
    const [version, study, shares, locked, params, tokens, trainer, ...more] = hash
      .slice(LINK.length, LONGEST_LINK)
      .split("~");
    if (version !== VERSION) refuse("it is damaged, or of another version of mixlaw");
    if (trainer === undefined || more.length) refuse("it is damaged or cut short");
    if (study !== fingerprint(data.domains)) refuse("it is of another study, with other domains");
    const whole = (text) =>
      /^[0-9a-z]{1,6}$/.test(text) ? parseInt(text, 36) : refuse("it is damaged");
    const units = shares.split(".").map(whole);
    const kept = locked === "" ? [] : locked.split(".").map(whole);
    const sum = units.reduce((a, b) => a + b, 0);
    const domains = data.domains.length;
    if (units.length !== domains || sum !== LINK_UNITS || kept.some((j) => j >= domains)) {
      refuse("it is damaged");
    }
    const place = (axis, text) => {
      const grid = data.scale[axis]?.values ?? [""];
      const index = grid.findIndex((value) => String(value) === text);
      return index < 0 ? refuse("this report has no such scale") : index;
    };
    return {
      shares: units.map((unit) => unit / LINK_UNITS),
      locked: units.map((_, j) => kept.includes(j)),
      scale: { [AXES[0]]: place(AXES[0], params), [AXES[1]]: place(AXES[1], tokens) },
      trainer: Math.max(0, data.trainers.findIndex((one) => one.name === trainer)),
    };
  };

  mixlaw.link = { start: LINK, encode, decode };
})();
