// Applies the chosen theme before the page is shown. It is no module, so that it runs early.
document.documentElement.dataset.theme = localStorage.getItem("tally.theme") ?? "auto";
