// Curves that grow while Python trains.
function liveTraining(shell) {
  const { fixed } = shell;
  const state = { progress: null, lines: null };
  const stop = fpt.button("Stop", () => shell.choose({ running: false }));
  const goOn = fpt.button("Continue", () => shell.choose({ running: true }));
  const told = fpt.element("span", { className: "fpt-progress" });
  shell.bar.append(stop.node, goOn.node, told);
  const charts = ["accuracy", "loss"].map((quantity) => {
    const chart = curves.chart(`Curve of ${quantity} so far. Arrow keys move through training.`, { say: shell.say });
    chart.node.dataset.chart = quantity;
    shell.pane(quantity === "accuracy" ? "Accuracy" : "Loss", chart.node);
    return { quantity, chart };
  });
  shell.on("change:progress", () => shell.redraw());
  return () => {
    const progress = shell.model.get("progress");
    if (progress !== state.progress) {
      const held = document.activeElement;
      state.progress = progress;
      state.lines = Object.fromEntries(charts.map(({ quantity }) => [quantity, curves.ofRun(progress.curves, quantity, 0)]));
      state.levels = progress.levels.map(([at, label]) => ({ at, label }));
      state.noLevels = [];
      stop.node.disabled = !progress.can_stop;
      goOn.node.disabled = !progress.can_go_on;
      // A button that switches itself off would lose the keyboard.
      if (held === stop.node && stop.node.disabled && !goOn.node.disabled) goOn.node.focus();
      if (held === goOn.node && goOn.node.disabled && !stop.node.disabled) stop.node.focus();
      told.textContent = progress.words;
      shell.root.dataset.status = progress.status;
      const { window } = progress.curves;
      shell.help.textContent = `Pale, or alone: training batch, mean of the last ${window} steps, dropout on; with markers: validation. `
        + "Other cells run between steps.";
    }
    const room = Math.max(280, (shell.width || 900) - 24), perRow = room >= 700 ? 2 : 1;
    const width = Math.floor((room - 16 * (perRow - 1)) / perRow);
    for (const { quantity, chart } of charts) {
      chart.draw({
        width, height: 240, lines: state.lines[quantity], levels: quantity === "accuracy" ? state.levels : state.noLevels, styles: fixed.styles,
        xTitle: "gradient steps", yTitle: quantity === "accuracy" ? "accuracy per target" : "loss (nats a target)",
        xRange: progress.ranges.step, yRange: progress.ranges[quantity], xWords: (x) => `step ${x}`,
      });
    }
  };
}

const fptWidget = { render: (context) => fpt.render(context, liveTraining) };
export default fptWidget;
