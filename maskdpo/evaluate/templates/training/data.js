/* The training report. The files of this folder run as one function after those of ../page, in the order that
   training.py names.

   Names in the data: runs [{name, steps: columns, evals: columns or null}]; columns {step: [...], figure: [...]}: the
   rows of metrics.jsonl and eval.jsonl on their sides. A figure that was not taken at a step is null there. */

const { runs } = DATA;

/** Panels: title, unit, figures with the side that they speak of. Held-out pairs have those of the first four. */
const PANELS = [
  { id: "loss", title: "Loss", lines: [["loss", ""]] },
  { id: "margin", title: "Margin", note: "reward of chosen − rejected", lines: [["margin", ""]] },
  { id: "accuracy", title: "Accuracy", note: "share of pairs with a margin above 0", lines: [["accuracy", ""]], range: [0, 1] },
  {
    id: "kept",
    title: "Rewards, kept tokens",
    note: "those that take part in the loss",
    lines: [
      ["reward_kept_chosen", "chosen"],
      ["reward_kept_rejected", "rejected"],
    ],
  },
  {
    id: "masked",
    title: "Rewards, masked tokens",
    note: "those that training was not to touch",
    lines: [
      ["reward_masked_chosen", "chosen"],
      ["reward_masked_rejected", "rejected"],
    ],
  },
  { id: "speed", title: "Throughput", note: "tokens / s", lines: [["tokens_per_s", ""]], zero: true },
  {
    id: "peak",
    title: "Share of the device’s peak",
    note: "useful operations / s over what it can do",
    lines: [["peak_share", ""]],
    zero: true,
  },
  { id: "gradient", title: "Gradient norm", note: "before clipping", lines: [["grad_norm", ""]], zero: true },
  { id: "lr", title: "Learning rate", lines: [["lr", ""]], zero: true },
];

/** Every line of a panel: {run, name, held, xs, ys, colour, dashed}. One run: a colour a side; several: one a run. */
function linesOf(panel) {
  return runs.flatMap((run, r) =>
    panel.lines.flatMap(([figure, side], k) =>
      [run.steps, run.evals].flatMap((columns, held) => {
        if (!columns || !columns[figure]) return [];
        const name = [runs.length > 1 ? run.name : "", side, held ? "held out" : ""].filter(Boolean).join(", ");
        const colour = (runs.length > 1 ? r : k) % 6;
        return [{ run: r, name: name || "training", held, xs: columns.step, ys: columns[figure], colour, dashed: k > 0 }];
      }),
    ),
  );
}

/** An exponential mean, 0: none. It begins unbiased, and passes over what was not taken. */
function smooth(values, weight) {
  if (!weight) return values;
  let sum = 0,
    total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** [x, y] without what was not taken; of long runs the lowest and highest of each of ``cells`` stretches, so that no
    spike is lost. */
function points(line, values, cells = 400) {
  const all = line.xs.map((x, i) => [x, values[i]]).filter(([, y]) => y !== null);
  if (all.length <= 2 * cells) return all;
  const out = [];
  const size = all.length / cells;
  for (let cell = 0; cell < cells; cell++) {
    const part = all.slice(Math.floor(cell * size), Math.floor((cell + 1) * size));
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    out.push(...(low === high ? [low] : low[0] < high[0] ? [low, high] : [high, low]));
  }
  return out;
}
