// Compiles only if the types that pages see are usable as the documentation says, and the pure parts are as described.
import { connect, presence, type Interview } from "../client.js";

const mine = connect({ url: "https://presence.example", token: "t", page: "home", getToken: async () => "t" });
const stop: () => void = mine.on("interview", (i: Interview) => i.position?.toFixed());
mine.on("ended", ({ reason }) => reason.toUpperCase());
mine.enter({ takeover: true });
mine.setPage("learning");
mine.on("fallback", () => mine.resume());
connect({ revive: true });
stop();
presence?.close();

// @ts-expect-error - no such event
mine.on("nothing", () => {});
// @ts-expect-error - the state is read only
mine.state = "online";
