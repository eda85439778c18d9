// Applies the chosen theme before the page is shown. It is not a module, so it runs early.
document.documentElement.dataset.theme = localStorage.getItem("tally.theme") ?? "auto";
