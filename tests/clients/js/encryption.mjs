/**
 * The commands by which a test moves a client that encrypts: matrix-js-sdk with the Rust crypto.
 *
 * client.mjs adds them to its own; `theClient` gives them the client of the moment.
 */
import {
    CryptoEvent,
    decodeRecoveryKey,
    VerificationPhase,
    VerifierEvent,
} from "matrix-js-sdk/lib/crypto-api/index.js";

const WAIT_MS = 20_000;
const LOOK_EVERY_MS = 50;

/** What the person has typed in or was shown: the key to what is kept encrypted on the server. */
const secretStorageKeys = new Map();

/** How the SDK asks a person for the key of the secret storage. */
export const cryptoCallbacks = {
    async getSecretStorageKey({ keys }) {
        for (const keyId of Object.keys(keys)) {
            const key = secretStorageKeys.get(keyId) ?? secretStorageKeys.get("typed in");
            if (key) return [keyId, key];
        }
        return null;
    },
    cacheSecretStorageKey(keyId, _info, key) {
        secretStorageKeys.set(keyId, key);
    },
};

/** The first truthy answer of `look`: decryption ends at no event that could be waited for. */
async function eventually(what, look) {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
        const found = await look();
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`no ${what} within ${WAIT_MS} ms`);
        await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
}

export function encryptionCommands(theClient) {
    let request;
    let sas;
    let verified;

    const crypto = () => theClient().getCrypto();

    /** Take part in the verification, up to what both people compare. */
    function follow(verifier) {
        verifier.on(VerifierEvent.ShowSas, (shown) => (sas = shown));
        verified = verifier.verify();
        verified.catch((error) => console.error("verification failed:", String(error)));
    }

    function text(roomId, body) {
        const events = theClient().getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
        return events.find((event) => event.getContent().body === body && !event.status);
    }

    return {
        /** To be given before `start`. In Node there is no IndexedDB, and all stays in memory. */
        async initCrypto() {
            await theClient().initRustCrypto({ useIndexedDB: "indexedDB" in globalThis });
            theClient().on(CryptoEvent.VerificationRequestReceived, (received) => (request = received));
        },

        async createEncryptedRoom({ invite }) {
            const algorithm = { algorithm: "m.megolm.v1.aes-sha2" };
            const encryption = { type: "m.room.encryption", state_key: "", content: algorithm };
            const answer = await theClient().createRoom({
                invite,
                preset: "private_chat",
                initial_state: [encryption],
            });
            await eventually("encryption", () => crypto().isEncryptionEnabledInRoom(answer.room_id));
            return answer.room_id;
        },

        /** What a message says that came encrypted, and who has sent it. */
        async waitForDecrypted({ roomId, body }) {
            const event = await eventually(`decrypted "${body}"`, () => text(roomId, body));
            return { isEncrypted: event.isEncrypted(), sender: event.getSender() };
        },

        /**
         * The very first time: cross-signing, secret storage, key backup. Answers with the recovery
         * key. The server must not ask for the password, as there is nothing to replace yet.
         */
        async bootstrap() {
            const recoveryKey = await crypto().createRecoveryKeyFromPassphrase();
            await crypto().bootstrapCrossSigning({
                authUploadDeviceSigningKeys: (makeRequest) => makeRequest(null),
            });
            await crypto().bootstrapSecretStorage({
                createSecretStorageKey: async () => recoveryKey,
                setupNewSecretStorage: true,
                setupNewKeyBackup: true,
            });
            return recoveryKey.encodedPrivateKey;
        },

        /** Other keys for old ones; answers with the statuses of the refusals that asked for a proof. */
        async resetCrossSigning({ password }) {
            const answers = [];
            const user = theClient().getUserId();
            const identifier = { type: "m.id.user", user };
            await crypto().bootstrapCrossSigning({
                setupNewCrossSigning: true,
                async authUploadDeviceSigningKeys(makeRequest) {
                    try {
                        await makeRequest(null);
                    } catch (error) {
                        answers.push(error.httpStatus);
                        const { session } = error.data;
                        await makeRequest({ type: "m.login.password", identifier, password, session });
                    }
                },
            });
            return answers;
        },

        async isReady() {
            return {
                crossSigning: await crypto().isCrossSigningReady(),
                secretStorage: await crypto().isSecretStorageReady(),
                backup: (await crypto().getActiveSessionBackupVersion()) !== null,
            };
        },

        async waitForBackup({ count }) {
            await eventually(`backup of ${count} keys`, async () => {
                // the SDK asks the server itself only once
                const info = await theClient().http.authedRequest("GET", "/room_keys/version");
                return info.count >= count;
            });
        },

        /** On a new device: type the recovery key in, and fetch all that it opens. */
        async restore({ recoveryKey }) {
            secretStorageKeys.set("typed in", decodeRecoveryKey(recoveryKey));
            // the private keys are only taken once the public ones are known
            await crypto().userHasCrossSigningKeys(theClient().getUserId(), true);
            await crypto().bootstrapCrossSigning({});
            await crypto().loadSessionBackupPrivateKeyFromSecretStorage();
            await crypto().checkKeyBackupAndEnable();
            const { total, imported } = await crypto().restoreKeyBackup();
            return { total, imported };
        },

        /** Leave a device on the server that receives keys while nobody is logged in. */
        async dehydrate() {
            if (!(await crypto().isDehydrationSupported())) throw new Error("not supported");
            await crypto().startDehydration();
        },

        /** Bring that device to life; answers with how many messages to it there were. */
        async rehydrate() {
            let messages = 0;
            theClient().on(CryptoEvent.RehydrationProgress, (_keys, count) => (messages = count));
            await crypto().startDehydration();
            return messages;
        },

        async requestVerification({ userId, roomId }) {
            request = await crypto().requestVerificationDM(userId, roomId);
        },

        async acceptVerification() {
            await eventually("request for verification", () => request);
            await request.accept();
        },

        async startSas() {
            await eventually("ready other side", () => request.phase === VerificationPhase.Ready);
            follow(await request.startVerification("m.sas.v1"));
        },

        async followSas() {
            follow(await eventually("start of the other side", () => request.verifier));
        },

        async emoji() {
            await eventually("emoji", () => sas);
            return sas.sas.emoji.map(([, name]) => name);
        },

        async confirmEmoji() {
            await sas.confirm();
        },

        async finishVerification() {
            await verified;
            await eventually("end", () => request.phase === VerificationPhase.Done);
        },

        async isVerified({ userId }) {
            return (await crypto().getUserVerificationStatus(userId)).isCrossSigningVerified();
        },

        async waitForVerified({ userId }) {
            await eventually(`verification of ${userId}`, async () =>
                (await crypto().getUserVerificationStatus(userId)).isCrossSigningVerified(),
            );
        },
    };
}
