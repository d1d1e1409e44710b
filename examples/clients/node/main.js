// node main.js ADDRESS SESSION get NAME
// node main.js ADDRESS SESSION set NAME JSON [EXPECTED_VERSION]
// node main.js ADDRESS SESSION watch [COUNT]
// ADDRESS is unix:/path/of/the/socket or host:port; a token is read from DSPEX_TOKEN.

const { Session } = require("./dspex");

async function main([address, id, verb, name, json, expect]) {
  const session = new Session(address, id, process.env.DSPEX_TOKEN);
  const print = (line) => console.log(JSON.stringify(line));
  if (verb === "get") {
    print(await session.get(name));
  } else if (verb === "set") {
    const options = expect === undefined ? {} : { expect: Number(expect) };
    const change = await session.set(name, JSON.parse(json), options);
    print({ version: change.version, rev: change.rev });
  } else if (verb === "watch") {
    let left = Number(name || Infinity);
    await new Promise((done) => {
      const end = session.watch(
        (changed, value, change) => {
          print({ name: changed, value, version: change.version, source: change.source });
          if (--left === 0) done(end());
        },
        () => print("ready"),
      );
    });
  }
  session.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
});
