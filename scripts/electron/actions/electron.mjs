// What is tried of examples/electron. Each action goes on where the one before ended.

export const actions = {
  async "the window opens"({ start }) {
    const app = await start();
    await app.shows("state", /^ready$/);
  },

  async "it trains five steps"({ app }) {
    await app().click("start");
    await app().shows("state", /^step ([5-9]|\d\d+) of /);
  },
};
