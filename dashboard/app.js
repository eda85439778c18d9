const { clientId, signIn } = document.documentElement.dataset;
document.querySelector("#app").textContent = `${clientId} signs in at ${signIn}`;
