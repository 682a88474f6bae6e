/** How a test and its client talk: one JSON object on each line, question in, answer out. */
import { createInterface } from "node:readline";

/** Give each line's command to `perform(command, given)` and print its answer, one at a time. */
export async function answerLines(perform) {
    for await (const line of createInterface({ input: process.stdin })) {
        const { id, command, given } = JSON.parse(line);
        const answer = await perform(command, given);
        process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`);
    }
}
