// Draws the figures of a page when they come into view, and gives each widget's frame the height of what is in it.
(() => {
  const draw = (plot) => {
    const spec = JSON.parse(plot.parentElement.querySelector("script").textContent);
    const options = { responsive: true, displaylogo: false };
    Plotly.newPlot(plot, spec.data, spec.layout || {}, { ...(spec.config || {}), ...options });
  };
  const plots = [...document.querySelectorAll(".plot")];
  if (plots.length) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "400px" });
    plots.forEach((plot) => seen.observe(plot));
    addEventListener("beforeprint", () => plots.filter((plot) => !plot.children.length).forEach(draw));
  }
  addEventListener("message", (event) => {
    const height = event.data && event.data.fptHeight;
    if (typeof height !== "number") return;
    for (const frame of document.querySelectorAll("figure.widget iframe")) {
      if (frame.contentWindow === event.source) frame.style.height = `${Math.min(Math.ceil(height) + 2, 4000)}px`;
    }
  });
})();
