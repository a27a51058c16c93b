// What a fitted study says of any mixture, as Python says it: `mixlaw.engine(data)`.
// `data` is the payload of mixlaw.report.explorer; the laws themselves are evaluated by
// `mixlaw.laws`. Shapes: M domains, T targets, K folds, C terms of the objective, R refits.
mixlaw.engine = (() => {
  "use strict";

  // Text as Python formats it: a violation reads the same on the page and in the terminal.

  // `f"{x:.4g}"`: four digits, ties to even, no trailing zeros.
  function short(x) {
    if (!Number.isFinite(x)) return Number.isNaN(x) ? "nan" : x > 0 ? "inf" : "-inf";
    if (x === 0) return "0";
    let [mantissa, exponent] = x.toExponential(3).split("e");
    const [exact] = Math.abs(x).toExponential(60).split("e");
    if (/^50*$/.test(exact.slice(5)) && "02468".includes(exact[4])) {
      mantissa = (x < 0 ? "-" : "") + exact.slice(0, 5);
    }
    const e = Number(exponent);
    if (e >= 4 || e < -4) {
      const digits = String(Math.abs(e)).padStart(2, "0");
      return trimmed(mantissa) + "e" + (e < 0 ? "-" : "+") + digits;
    }
    return trimmed(Number(mantissa + "e" + e).toFixed(3 - e));
  }

  function trimmed(text) {
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  }

  // `f"{x:,.0f}"`.
  function grouped(x) {
    let whole = Math.round(x);
    if (Math.abs(x % 1) === 0.5 && whole % 2) whole -= 1;
    return String(whole).replace(/\B(?=(\d{3})+$)/g, ",");
  }

  // Numbers

  function dot(a, b, offset = 0) {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[offset + i];
    return sum;
  }

  // Probability that a Student t of 5 degrees of freedom is below t.
  function studentBelow(t) {
    const angle = Math.atan(t / Math.sqrt(5));
    const sine = Math.sin(angle), cosine = Math.cos(angle);
    return 0.5 + (angle + sine * cosine * (1 + (2 / 3) * cosine * cosine)) / Math.PI;
  }

  // Probability that what is predicted lower by `gap` is lower; see laws/regret.py.
  function chanceBelow(gap, scale) {
    if (scale > 0) return studentBelow(gap / scale);
    return gap === 0 ? 0.5 : gap > 0 ? 1 : 0;
  }

  // Held-out errors of one number, `coefficients @ targets`; see laws/uncertainty.py, HeldOut.
  function heldOut(coefficients, data) {
    const sizes = Array.from({ length: data.numFolds }, () => []);
    let count = 0, squares = 0;
    for (let i = 0; i < data.fold.length; i++) {
      let residual = 0;
      for (let t = 0; t < coefficients.length; t++) {
        if (coefficients[t] !== 0) residual += coefficients[t] * data.residuals[i * coefficients.length + t];
      }
      if (Number.isNaN(residual)) continue;
      sizes[data.fold[i]].push(Math.abs(residual));
      squares += residual * residual;
      count += 1;
    }
    sizes.forEach((fold) => fold.sort((a, b) => b - a));
    const rank = Math.ceil((count + 1) * data.level);
    const heads = new Int32Array(data.numFolds);

    // The n-th largest of center + size over all held-out mixtures, from the sorted lists.
    function largest(n, centers, sign) {
      heads.fill(0);
      let found = NaN;
      for (; n > 0; n--) {
        let best = -1;
        found = -Infinity;
        for (let k = 0; k < sizes.length; k++) {
          if (heads[k] < sizes[k].length && sizes[k][heads[k]] + sign * centers[k] > found) {
            found = sizes[k][heads[k]] + sign * centers[k];
            best = k;
          }
        }
        heads[best] += 1;
      }
      return found;
    }

    // Half width where the folds' laws predict `centers` (K,): CV+, or Student's t where the
    // mixtures are too few for it.
    return (centers) => {
      if (rank <= count) {
        const n = count - rank + 1;
        return (largest(n, centers, 1) + largest(n, centers, -1)) / 2;
      }
      let mean = 0, spread = 0;
      sizes.forEach((fold, k) => (mean += (fold.length * centers[k]) / count));
      sizes.forEach((fold, k) => (spread += (fold.length * (centers[k] - mean) ** 2) / count));
      return Math.sqrt((squares / count) * (1 + 1 / count) + spread) * data.student[count];
    };
  }

  // Distance from the trained mixtures; see optimize/evidence.py.
  function distances(data, numDomains) {
    const roots = Float64Array.from(mixlaw.array(data.trained), Math.sqrt);
    return (shares) => {
      const own = Float64Array.from(shares, Math.sqrt);
      let least = Infinity;
      for (let first = 0; first < roots.length; first += numDomains) {
        let squared = 0;
        for (let j = 0; j < numDomains; j++) squared += (own[j] - roots[first + j]) ** 2;
        least = Math.min(least, squared);
      }
      const nearest = Math.sqrt(least / 2);
      const far = nearest > data.largest;
      const label = far
        ? "farther from every trained mixture than any of those is from its neighbour"
        : nearest > data.typical
          ? "among the trained mixtures, where they lie far apart"
          : "as near to a trained mixture as those are to each other";
      return { nearest, typical: data.typical, largest: data.largest, far, label };
    };
  }

  // Moves on the simplex

  // Shares of `total` in proportion to `weights`, each within [low, high]; where all weights are
  // 0, equally. There is such a division: sum(low) <= total <= sum(high).
  function divide(total, weights, low, high) {
    const n = weights.length, out = new Float64Array(n), frozen = new Uint8Array(n);
    // Domains without a share stay without one while the others can take all.
    let room = 0;
    for (let i = 0; i < n; i++) room += weights[i] > 0 ? high[i] : low[i];
    const equally = room < total;
    if (equally) {
      for (let i = 0; i < n; i++) {
        if (weights[i] > 0) {
          out[i] = high[i];
          frozen[i] = 1;
        }
      }
    }
    for (;;) {
      let rest = total, sum = 0;
      for (let i = 0; i < n; i++) {
        if (frozen[i]) rest -= out[i];
        else sum += equally ? 1 : weights[i];
      }
      let excess = 0, bent = 0;
      for (let i = 0; i < n; i++) {
        if (frozen[i]) continue;
        const share = sum > 0 ? (rest * (equally ? 1 : weights[i])) / sum : 0;
        out[i] = Math.min(high[i], Math.max(low[i], share));
        excess += out[i] - share;
        if (out[i] !== share) bent += 1;
      }
      if (bent === 0) return out;
      // As CSS does with flexible boxes: the side that is broken more is certain to bind.
      for (let i = 0; i < n; i++) {
        if (frozen[i]) continue;
        const share = sum > 0 ? (rest * (equally ? 1 : weights[i])) / sum : 0;
        if (out[i] !== share && (excess === 0 || out[i] > share === excess > 0)) frozen[i] = 1;
      }
    }
  }

  // Sets domain j as near to `share` as the locks and limits let it; the other unlocked domains
  // give or take in proportion. A domain that lies outside its limits may stay there or come
  // back, and goes no further out. The sum stays one.
  function move(shares, locked, j, share, limits) {
    const before = Float64Array.from(shares);
    const others = [];
    let kept = 0;
    for (let i = 0; i < before.length; i++) {
      if (i !== j && !locked[i]) others.push(i);
      else if (i !== j) kept += before[i];
    }
    if (locked[j] || others.length === 0 || !Number.isFinite(share)) return before;
    const weights = Float64Array.from(others, (i) => before[i]);
    const low = Float64Array.from(others, (i) => Math.min(limits.low[i], before[i]));
    const high = Float64Array.from(others, (i) => Math.max(limits.high[i], before[i]));
    const rest = 1 - kept;
    const least = rest - high.reduce((a, b) => a + b, 0);
    const most = rest - low.reduce((a, b) => a + b, 0);
    let wanted = Math.min(limits.high[j], Math.max(limits.low[j], share));
    wanted = Math.max(wanted, least, Math.min(limits.low[j], before[j]));
    wanted = Math.min(wanted, most, Math.max(limits.high[j], before[j]));
    if (Math.abs(wanted - before[j]) < 1e-15) return before;
    const out = Float64Array.from(before);
    out[j] = wanted;
    const given = divide(rest - wanted, weights, low, high);
    others.forEach((i, k) => (out[i] = given[k]));
    settle(out, [j, ...others]);
    return out;
  }

  // Takes the rounding error of the sum (some 1e-16) from the largest of the free domains.
  function settle(out, free) {
    const dust = 1 - out.reduce((a, b) => a + b, 0);
    let largest = free[0];
    for (const i of free) if (out[i] > out[largest]) largest = i;
    out[largest] += dust;
  }

  // The engine

  return (data) => {
    const own = data.engine, constants = own.constants;
    const M = data.domains.length, T = data.targets.length;
    const available = Float64Array.from(data.available_tokens, (n) => (n === null ? Infinity : n));
    const laws = mixlaw.laws(own.laws);
    const folds = mixlaw.laws(own.folds);
    const draws = own.draws && mixlaw.laws(own.draws.laws);
    const K = own.num_folds, L = laws.size;
    const links = own.links && mixlaw.links(own.links.full);
    const foldLinks = own.links && own.links.folds.map(mixlaw.links);
    const rows = own.objective.rows.map((row) => Float64Array.from(row));
    const C = rows.length, relative = own.objective.relative;
    const distance = distances(own.distance, M);
    const errors = {
      residuals: mixlaw.array(own.within.residuals),
      fold: own.within.fold,
      student: own.within.student,
      level: data.level,
      numFolds: K,
    };
    const unit = (t) => Float64Array.from({ length: T }, (_, i) => (i === t ? 1 : 0));
    const near = Array.from({ length: T }, (_, t) => heldOut(unit(t), errors));
    const nearTerms = relative === null ? rows.map((row) => heldOut(row, errors)) : null;
    const far = own.far && mixlaw.array(own.far); // (T + C)
    const rivals = mixlaw.array(own.scales.rivals); // (G, rivals, T)
    const numRivals = own.scales.num_rivals;

    // A place of the scale sliders: its number in the tables by scale, and its counts.
    function placeOf(scale) {
      const params = data.scale.num_params, tokens = data.scale.train_tokens;
      const at = { ...{ num_params: 0, train_tokens: 0 }, ...scale };
      const number = (params ? at.num_params : 0) * (tokens ? tokens.values.length : 1) +
        (tokens ? at.train_tokens : 0);
      return {
        number,
        num_params: params ? params.values[at.num_params] : own.at.num_params,
        train_tokens: tokens ? tokens.values[at.train_tokens] : own.at.train_tokens,
      };
    }

    // Values of the targets, `out` (T,), from losses (L,) and the links to scores.
    function withScores(losses, linked, out) {
      out.set(losses);
      if (linked) linked.evaluate(losses, out.subarray(L));
    }

    const ofLaws = new Float64Array(L), ofFolds = new Float64Array(K * L);
    const ofDraws = draws && new Float64Array(draws.size);

    // What the laws say of a mixture: values (T,), those of each fold (K x T), and the losses of
    // the refits that count (R x drawn).
    function evaluated(shares, place) {
      const { num_params, train_tokens } = place;
      const at = mixlaw.at(shares, { num_params, train_tokens, available_tokens: available });
      const values = new Float64Array(T), byFold = new Float64Array(K * T);
      laws.evaluate(at, ofLaws);
      withScores(ofLaws, links, values);
      folds.evaluate(at, ofFolds);
      for (let k = 0; k < K; k++) {
        const losses = ofFolds.subarray(k * L, (k + 1) * L);
        withScores(losses, foldLinks && foldLinks[k], byFold.subarray(k * T, (k + 1) * T));
      }
      if (draws) draws.evaluate(at, ofDraws);
      return { shares, values, byFold, losses: ofDraws };
    }

    // Terms of the objective in the targets' values at a place: rows (C, T) and offsets (C,).
    function termsAt(reference) {
      if (relative === null) return { rows, offsets: new Float64Array(C) };
      return {
        rows: rows.map((row) => row.map((w, t) => (w === 0 ? 0 : w / Math.abs(reference[t])))),
        offsets: Float64Array.from(rows, (row) => -row.reduce((a, b) => a + b, 0)),
      };
    }

    // One mixture at one place, reduced to what comparisons need.
    function summed(shares, here) {
      const found = evaluated(shares, here.place);
      const terms = here.rows.map((row, c) => dot(row, found.values) + here.offsets[c]);
      const objective = Math.max(...terms);
      const ofFold = (row) =>
        Float64Array.from({ length: K }, (_, k) => dot(row, found.byFold, k * T));
      const refits = draws && refitObjectives(found.losses, here);
      return { ...found, terms, objective, ofFold, pressed: ofFold(here.pressing), refits };
    }

    // The objective by every refit (R,).
    function refitObjectives(losses, here) {
      const drawn = own.draws.targets, out = new Float64Array(own.draws.count);
      for (let d = 0; d < out.length; d++) {
        let worst = -Infinity;
        for (let c = 0; c < C; c++) {
          let term = here.offsets[c];
          for (let i = 0; i < drawn.length; i++) {
            term += here.rows[c][drawn[i]] * losses[d * drawn.length + i];
          }
          worst = Math.max(worst, term);
        }
        out[d] = worst;
      }
      return out;
    }

    // All that holds for every mixture at a place of the sliders; kept, for a slider is moved back
    // and forth.
    const places = new Map();
    function placed(scale) {
      const place = placeOf(scale);
      if (!places.has(place.number)) places.set(place.number, prepared(place));
      return places.get(place.number);
    }

    function prepared(place) {
      const reference =
        relative === null ? null : evaluated(own.mixtures[relative].shares, place).values;
      const terms = termsAt(reference);
      const pressing = new Float64Array(T);
      terms.rows.forEach((row, c) => row.forEach((w, t) => (pressing[t] += own.multipliers[c] * w)));
      const here = { place, ...terms, pressing, limits: limitsAt(place.train_tokens) };
      here.mixtures = own.mixtures.map((mixture) => summed(mixture.shares, here));
      here.floors = own.floors.map((floor) => {
        const level = floor.mixture === null ? floor.than : here.mixtures[floor.mixture].values[floor.target];
        return { ...floor, worst: level + floor.sign * floor.slack };
      });
      return here;
    }

    // Half width of the interval of `row @ targets`, from that within the trained scales; see
    // laws/intervals.py.
    function widened(within, row, ofFar, number) {
      const away = own.scales.distance[number];
      if (away === 0) return within;
      let doubt = 0;
      for (let r = 0; r < numRivals; r++) {
        doubt = Math.max(doubt, Math.abs(dot(row, rivals, (number * numRivals + r) * T)));
      }
      const wide = (far ? far[ofFar] : within) * own.scales.widening[number] + doubt;
      return within + Math.min(1, away) * Math.max(0, wide - within);
    }

    // Scale of the error of the difference of two mixtures, of which the folds say `a` and `b`
    // (K,); see laws/regret.py, ErrorField.
    function differenceScale(a, b, first, second, ownScale) {
      const meanA = dot(a, new Float64Array(K).fill(1 / K));
      const meanB = dot(b, new Float64Array(K).fill(1 / K));
      let aa = 0, bb = 0, ab = 0, squared = 0;
      for (let k = 0; k < K; k++) {
        aa += (a[k] - meanA) ** 2 / K;
        bb += (b[k] - meanB) ** 2 / K;
        ab += ((a[k] - meanA) * (b[k] - meanB)) / K;
      }
      for (let j = 0; j < M; j++) {
        squared += (Math.sqrt(first[j] + constants.floor) - Math.sqrt(second[j] + constants.floor)) ** 2;
      }
      const shared = Math.exp(squared / (-2 * constants.shared_length ** 2));
      const lone = Math.exp(squared / (-2 * constants.lone_length ** 2));
      const apart = Math.max(0, 2 - (shared + lone));
      return Math.sqrt((K - 1) * Math.max(0, aa + bb - 2 * ab) + ownScale ** 2 * apart);
    }

    // Of the objective: the widest of the terms that are the worst.
    function objectiveHalf(found, here) {
      const margin = constants.nearly * Math.max(1, Math.abs(found.objective));
      let half = 0;
      found.terms.forEach((term, c) => {
        if (term < found.objective - margin) return;
        const folds_ = found.ofFold(here.rows[c]);
        if (relative === null) {
          half = Math.max(half, widened(nearTerms[c](folds_), here.rows[c], T + c, here.place.number));
        } else {
          const base = here.mixtures[relative];
          const ownScale = own.scales.own_terms[here.place.number][c];
          const scale = differenceScale(
            folds_, base.ofFold(here.rows[c]), found.shares, base.shares, ownScale);
          half = Math.max(half, constants.quantile * scale);
        }
      });
      return half;
    }

    function targetHalves(found, here) {
      const centers = new Float64Array(K);
      return Float64Array.from({ length: T }, (_, t) => {
        for (let k = 0; k < K; k++) centers[k] = found.byFold[k * T + t];
        return widened(near[t](centers), unit(t), t, here.place.number);
      });
    }

    // What the bounds and epoch caps allow at a number of training tokens.
    function limitsAt(tokens) {
      const bounds = data.bounds;
      const allowed = bounds.max_epochs.map((cap, j) =>
        cap === null ? Infinity : (cap * available[j]) / tokens);
      return {
        low: Float64Array.from(bounds.low),
        high: Float64Array.from(bounds.high, (high, j) => Math.min(high, allowed[j])),
        capped: bounds.high.map((high, j) => allowed[j] < high),
      };
    }

    // One phrase for each limit or floor that a mixture breaks, as optimize/limits.py says it.
    function violations(found, here) {
      const out = [], { low, high, capped } = here.limits, r = found.shares;
      const slack = constants.slack, names = data.domains, bounds = data.bounds;
      for (let j = 0; j < M; j++) {
        if (r[j] < low[j] - slack) {
          out.push(`${names[j]} ${short(r[j])} < ${short(low[j])} (${bounds.low_reason[j]})`);
        }
        if (r[j] > high[j] + slack) {
          const why = capped[j] ? constants.epoch_cap : bounds.high_reason[j];
          out.push(`${names[j]} ${short(r[j])} > ${short(high[j])} (${why})`);
        }
      }
      for (const group of bounds.groups) {
        const share = group.members.reduce((sum, j) => sum + r[j], 0);
        if (share < group.low - slack) out.push(`group ${group.name} ${short(share)} < ${short(group.low)}`);
        if (share > group.high + slack) out.push(`group ${group.name} ${short(share)} > ${short(group.high)}`);
      }
      for (const unique of bounds.unique_tokens) {
        const tokens = here.place.train_tokens;
        let seen = 0;
        for (let j = 0; j < M; j++) seen += Math.min(r[j], available[j] / tokens);
        const over = (seen - unique.tokens / tokens) * (unique.upper ? 1 : -1);
        if (over > 2 * slack) {
          const side = unique.upper ? "at most" : "at least";
          out.push(`${grouped(seen * tokens)} unique tokens, ${side} ${grouped(unique.tokens)} unique tokens`);
        }
      }
      if (bounds.near) out.push(...tooFar(bounds.near, r));
      for (const floor of here.floors) {
        const reached = found.values[floor.target];
        if (floor.sign * (reached - floor.worst) > constants.floor_slack) {
          const name = data.targets[floor.target].name, side = floor.sign < 0 ? "at least" : "at most";
          out.push(`${name} ${short(reached)}, its floor: ${name} ${side} ${short(floor.worst)}`);
        }
      }
      return out;
    }

    // As optimize/curved.py, Distance.
    function tooFar(near_, r) {
      let value = 0;
      const least = constants.least_share;
      for (let j = 0; j < M; j++) {
        if (near_.measure === "l2") {
          value += (r[j] - near_.shares[j]) ** 2;
        } else {
          const given = Math.max(r[j], least), short_ = r[j] - given;
          value += r[j] * Math.log(given / Math.max(near_.shares[j], least)) +
            short_ + short_ ** 2 / (2 * given);
        }
      }
      const limit = near_.measure === "l2" ? near_.at_most ** 2 : near_.at_most;
      if (value - limit <= 2 * constants.slack) return [];
      const shown = near_.measure === "l2" ? Math.sqrt(value) : value;
      return [`${near_.measure} distance from ${near_.name} ${short(shown)} > ${short(near_.at_most)}`];
    }

    function outside(shares) {
      const { low, high } = data.trained_range, out = [];
      for (let j = 0; j < M; j++) {
        if (shares[j] < low[j] - constants.support_slack || shares[j] > high[j] + constants.support_slack) {
          out.push({ domain: data.domains[j], share: shares[j], low: low[j], high: high[j] });
        }
      }
      return out;
    }

    function epochs(shares, tokens) {
      if (tokens === null) return null;
      return Float64Array.from(shares, (share, j) =>
        data.available_tokens[j] === null ? NaN : (share * tokens) / available[j]);
    }

    function against(found, here) {
      return own.against.map((index) => {
        const other = here.mixtures[index], gain = other.objective - found.objective;
        const scale = differenceScale(
          found.pressed, other.pressed, found.shares, other.shares,
          own.scales.own[here.place.number]);
        let lower = 0;
        if (draws) found.refits.forEach((value, d) => (lower += value < other.refits[d] ? 1 : 0));
        return {
          name: own.mixtures[index].name,
          kind: own.mixtures[index].kind,
          gain,
          chance: chanceBelow(gain, scale),
          refits: draws ? { lower, of: own.draws.count } : null,
        };
      });
    }

    return {
      // What is forecast of a mixture (M,) at a place of the scale sliders.
      forecast(shares, scale) {
        const here = placed(scale), found = summed(shares, here);
        return {
          objective: { value: found.objective, half: objectiveHalf(found, here) },
          values: found.values,
          halves: targetHalves(found, here),
          epochs: epochs(found.shares, here.place.train_tokens),
          distance: distance(found.shares),
          outside: outside(found.shares),
          violations: violations(found, here),
          against: against(found, here),
        };
      },
      // Smallest and largest share of each domain at a place of the scale sliders, and which of
      // the largest come from an epoch cap.
      limits: (scale) => limitsAt(placeOf(scale).train_tokens),
      // The counts at a place of the scale sliders.
      counts(scale) {
        const { num_params, train_tokens } = placeOf(scale);
        return { num_params, train_tokens };
      },
      // The place of the study's own target.
      target: {
        num_params: data.scale.num_params ? data.scale.num_params.target : 0,
        train_tokens: data.scale.train_tokens ? data.scale.train_tokens.target : 0,
      },
      move,
    };
  };
})();
