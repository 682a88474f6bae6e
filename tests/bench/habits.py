"""What users do in an hour: one function per action, and how often they do it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from PIL import Image

from tests.bench import town as towns
from tests.bench.town import Device, Person, Room, Town

V1 = "/_matrix/client/v1"
COMMAND = "!do "
STAYS = 3
"""How many rooms a user is in besides the permanent ones."""
KEYS = 20
"""One-time keys of a device."""
PICTURE = (400, 300)
_FILTER = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 20}}}

Habit = Callable[[Town, Person], None]


def say(_: Town, me: Person) -> None:
    """Send a plain message."""
    room = me.room()
    room.said.append((me.say(room, me.words()), me.user_id))


def say_secretly(_: Town, me: Person) -> None:
    """Send an encrypted message."""
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "c" * 600, "session_id": "s" * 43}
    me.send(me.room(), "m.room.encrypted", secret)


def say_to_bot(_: Town, me: Person) -> None:
    """Send a message to which the bot replies."""
    me.say(me.room(), COMMAND + me.words())


def reply(_: Town, me: Person) -> None:
    """Reply to a message."""
    room = me.room()
    event_id, user_id = me.random.choice(list(room.said))
    to = {"m.in_reply_to": {"event_id": event_id}}
    me.say(room, me.words(), **{"m.relates_to": to, "m.mentions": {"user_ids": [user_id]}})


def reply_in_thread(_: Town, me: Person) -> None:
    """Send a message in a thread."""
    room = me.room()
    event_id, _user_id = me.random.choice(list(room.said))
    me.say(room, me.words(), **{"m.relates_to": {"rel_type": "m.thread", "event_id": event_id}})


def react(town: Town, me: Person) -> None:
    """Send a reaction, unless there is one already."""
    room = me.room()
    event_id, _user_id = me.random.choice(list(room.said))
    if event_id in me.reacted:
        receive(town, me)
        return
    me.reacted.append(event_id)
    key = me.random.choice(["\N{THUMBS UP SIGN}", "\N{PARTY POPPER}", "\N{HEAVY BLACK HEART}"])
    to = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
    me.send(room, "m.reaction", {"m.relates_to": to})


def edit(_: Town, me: Person) -> None:
    """Send a message and edit it."""
    room = me.room()
    event_id = me.say(room, me.words())
    new = {"msgtype": "m.text", "body": me.words()}
    to = {"rel_type": "m.replace", "event_id": event_id}
    me.say(room, f"* {new['body']}", **{"m.new_content": new, "m.relates_to": to})


def redact(_: Town, me: Person) -> None:
    """Send a message and redact it."""
    room = me.room()
    event_id = me.say(room, me.words())
    path = f"{room.path}/redact/{quote(event_id)}/r{next(me.numbers)}"
    me.desk.ask("PUT", path, {"reason": "typo"})


def read(_: Town, me: Person) -> None:
    """Send a receipt, sometimes with the read marker."""
    room = me.room()
    event_id, _user_id = room.said[-1]
    if me.random.random() < 0.2:
        marks = {"m.fully_read": event_id, "m.read": event_id}
        me.desk.ask("POST", f"{room.path}/read_markers", marks)
    else:
        me.desk.ask("POST", f"{room.path}/receipt/m.read/{quote(event_id)}")


def type_(_: Town, me: Person) -> None:
    """Start typing; it mostly stops explicitly, otherwise by timeout."""
    room = me.room()
    path = f"{room.path}/typing/{quote(me.user_id)}"
    me.desk.ask("PUT", path, {"typing": True, "timeout": 20_000})
    if me.random.random() < 0.7:
        me.desk.ask("PUT", path, {"typing": False})


def appear(_: Town, me: Person) -> None:
    """Change the presence."""
    state = me.random.choice(["online", "unavailable", "offline"])
    body = {"presence": state, "status_msg": me.words()[:80]}
    me.desk.ask("PUT", f"presence/{quote(me.user_id)}/status", body)


def receive(_: Town, me: Person) -> None:
    """Sync."""
    me.desk.sync()


def start_client(_: Town, me: Person) -> None:
    """Do an initial sync."""
    me.desk.since = ""
    me.desk.sync(filter=json.dumps(_FILTER), set_presence="offline")


def scroll_back(_: Town, me: Person) -> None:
    """Read the next page of the history, from the end again after the last."""
    room = me.room()
    start: dict[str, Any] = {"from": me.back[room.room_id]} if room.room_id in me.back else {}
    page = me.desk.ask("GET", f"{room.path}/messages", dir="b", limit=30, **start)
    me.back.pop(room.room_id, None)
    if "end" in page:
        me.back[room.room_id] = page["end"]


def search(_: Town, me: Person) -> None:
    """Search all messages."""
    wanted = {"search_term": me.words().split()[0], "order_by": "recent"}
    me.desk.ask("POST", "search", {"search_categories": {"room_events": wanted}})


def look_around(_: Town, me: Person) -> None:
    """Request one of the things that clients look up."""
    room = me.room()
    event_id, user_id = me.random.choice(list(room.said))
    path = me.random.choice(
        [
            f"{room.path}/context/{quote(event_id)}",
            f"{room.path}/event/{quote(event_id)}",
            f"{room.path}/members",
            f"{room.path}/joined_members",
            f"{room.path}/state",
            f"{V1}/{room.path}/relations/{quote(event_id)}",
            f"{V1}/{room.path}/threads",
            f"profile/{quote(user_id)}",
            "publicRooms",
            "joined_rooms",
            "devices",
            "notifications",
            "pushrules/",
            "capabilities",
            "account/whoami",
        ]
    )
    me.desk.ask("GET", path)


def find_people(_: Town, me: Person) -> None:
    """Search the user directory."""
    me.desk.ask("POST", "user_directory/search", {"search_term": f"p{me.random.randrange(9)}"})


def upload(_: Town, me: Person) -> None:
    """Upload an image and send it."""
    noise = Image.frombytes("L", PICTURE, me.random.randbytes(PICTURE[0] * PICTURE[1]))
    data = io.BytesIO()
    noise.convert("RGB").save(data, "JPEG")
    sent = me.desk.raw("POST", "/_matrix/media/v3/upload?filename=a.jpg", data.getvalue())
    uri = str(json.loads(sent)["content_uri"])
    me.files.append(uri.removeprefix("mxc://"))
    picture = {"msgtype": "m.image", "body": "a.jpg", "url": uri}
    me.send(me.room(), "m.room.message", picture)


def look_at_picture(town: Town, me: Person) -> None:
    """Download an image of some user, or its thumbnail."""
    files = list(me.random.choice(town.people).files)
    if not files:
        upload(town, me)
    elif me.random.random() < 0.5:
        me.desk.raw("GET", f"{V1}/media/download/{me.random.choice(files)}")
    else:
        size = me.random.choice([96, 320])
        query = f"width={size}&height={size}&method=scale"
        me.desk.raw("GET", f"{V1}/media/thumbnail/{me.random.choice(files)}?{query}")


def visit(town: Town, me: Person) -> None:
    """Join a public room for a short time."""
    if not me.elsewhere:
        receive(town, me)
        return
    room = me.random.choice(me.elsewhere)
    me.desk.ask("POST", f"join/{quote(room.room_id)}")
    me.desk.ask("GET", f"{room.path}/messages", dir="b", limit=20)
    me.say(room, me.words())
    me.desk.ask("POST", f"{room.path}/leave")


def meet(town: Town, me: Person) -> None:
    """Create a room and invite a user."""
    other = me.random.choice([it for it in town.people if it is not me])
    wishes = {"preset": "private_chat", "invite": [other.user_id], "topic": me.words()}
    room_id = str(me.desk.ask("POST", "createRoom", wishes)["room_id"])
    other.invites.append(room_id)
    _stay(me, room_id)


def answer_invite(town: Town, me: Person) -> None:
    """Accept or reject an invite."""
    if not me.invites:
        meet(town, me)
        return
    room = Room(me.invites.popleft(), [], is_public=False)
    if me.random.random() < 0.2:
        me.desk.ask("POST", f"{room.path}/leave")
        me.desk.ask("POST", f"{room.path}/forget")
        return
    me.desk.ask("POST", f"{room.path}/join")
    me.say(room, me.words())
    _stay(me, room.room_id)


def change_room(_: Town, me: Person) -> None:
    """Change the topic as the creator of the room; other members send a message."""
    room = me.room()
    if room.members[0] == me.user_id:
        me.desk.ask("PUT", f"{room.path}/state/m.room.topic/", {"topic": me.words()})
    else:
        room.said.append((me.say(room, me.words()), me.user_id))


def ban(town: Town, me: Person) -> None:
    """Ban and unban a user as the creator of the room; other members look around."""
    room = me.room()
    if room.members[0] != me.user_id:
        look_around(town, me)
        return
    me.desk.ask("POST", f"{room.path}/ban", {"user_id": "@troll:localhost"})
    me.desk.ask("POST", f"{room.path}/unban", {"user_id": "@troll:localhost"})


def use_new_device(_: Town, me: Person) -> None:
    """Log in as a new client does, and log out again."""
    device = towns.log_in(me.desk.url, me.user_id)
    upload_keys(device)
    me_path = f"user/{quote(me.user_id)}"
    filter_id = device.ask("POST", f"{me_path}/filter", _FILTER)["filter_id"]
    device.sync(filter=filter_id)
    device.sync(filter=filter_id)
    device.ask("POST", "logout")
    device.hang_up()


def upload_keys(device: Device) -> None:
    """Upload device keys and one-time keys."""
    signed = {"signatures": {device.user_id: {f"ed25519:{device.device_id}": "s" * 86}}}
    keys = {f"{kind}:{device.device_id}": "c" * 43 for kind in ("ed25519", "curve25519")}
    device_keys = {
        "user_id": device.user_id,
        "device_id": device.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": keys,
        **signed,
    }
    once = _one_time_keys(device, range(KEYS))
    device.ask("POST", "keys/upload", {"device_keys": device_keys, "one_time_keys": once})


def renew_keys(_: Town, me: Person) -> None:
    """Upload one-time keys to replace claimed ones."""
    counts = me.desk.ask("POST", "keys/upload")["one_time_key_counts"]
    gone = range(max(KEYS - counts.get("signed_curve25519", 0), 0))
    numbers = [KEYS + next(me.numbers) for _ in gone]
    me.desk.ask("POST", "keys/upload", {"one_time_keys": _one_time_keys(me.desk, numbers)})


def query_keys(_: Town, me: Person) -> None:
    """Query the device keys of all members of a room."""
    me.desk.ask("POST", "keys/query", {"device_keys": {it: [] for it in me.room().members}})


def share_key(town: Town, me: Person) -> None:
    """Claim a one-time key of another user's device, and send it a message."""
    other = town.by_id[me.random.choice(me.room().members)]
    wanted = {other.user_id: {other.desk.device_id: "signed_curve25519"}}
    me.desk.ask("POST", "keys/claim", {"one_time_keys": wanted})
    secret = {"algorithm": "m.olm.v1.curve25519-aes-sha2", "ciphertext": "c" * 800}
    devices = {it.device_id: secret for it in (other.desk, other.phone)}
    path = f"sendToDevice/m.room.encrypted/d{next(me.numbers)}"
    me.desk.ask("PUT", path, {"messages": {other.user_id: devices}})


def back_up_key(_: Town, me: Person) -> None:
    """Back up the key of a room; create the backup before the first one."""
    if not me.backup:
        algorithm = "m.megolm_backup.v1.curve25519-aes-sha2"
        info = {"algorithm": algorithm, "auth_data": {"public_key": "c" * 43}}
        me.backup = str(me.desk.ask("POST", "room_keys/version", info)["version"])
    secret = {"ciphertext": "c" * 500, "ephemeral": "c" * 43, "mac": "m" * 11}
    key = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True}
    path = f"room_keys/keys/{quote(me.room().room_id)}/s{next(me.numbers)}"
    me.desk.ask("PUT", path, key | {"session_data": secret}, version=me.backup)


def note(_: Town, me: Person) -> None:
    """Set global account data, that of a room, or a tag."""
    mine, room = f"user/{quote(me.user_id)}", me.room()
    path = me.random.choice(
        [
            f"{mine}/account_data/org.example.note",
            f"{mine}/{room.path}/account_data/org.example.note",
            f"{mine}/{room.path}/tags/u.work",
        ]
    )
    me.desk.ask("PUT", path, {"order": 0.5, "text": me.words()})


def tell_apart(_: Town, me: Person) -> None:
    """Set a push rule for a room, and sometimes delete it."""
    path = f"pushrules/global/room/{quote(me.room().room_id)}"
    me.desk.ask("PUT", path, {"actions": ["notify"]})
    if me.random.random() < 0.5:
        me.desk.ask("DELETE", path)


def rename(_: Town, me: Person) -> None:
    """Change the display name, which sends an event to each room of the user."""
    path = f"profile/{quote(me.user_id)}/displayname"
    me.desk.ask("PUT", path, {"displayname": me.words()[:30]})


def err(_: Town, me: Person) -> None:
    """Send a request that must be refused."""
    wrong = {"type": "m.login.password", "password": "wrong", "user": me.user_id}
    nowhere = "rooms/!nowhere:localhost"
    stranger = Device(me.desk.url, token="nobody's")
    which = me.random.randrange(4)
    if which == 0:
        me.desk.ask("POST", "login", wrong, expect=403)
    elif which == 1:
        me.desk.ask("PUT", f"{nowhere}/send/m.room.message/e", {}, expect=404)
    elif which == 2:
        me.desk.ask("GET", f"user/{quote(me.user_id)}/account_data/org.no", expect=404)
    else:
        stranger.ask("GET", "sync", expect=401)
        stranger.hang_up()


OFTEN: dict[Habit, int] = {
    say: 180,
    say_secretly: 60,
    say_to_bot: 10,
    reply: 60,
    reply_in_thread: 40,
    react: 80,
    edit: 30,
    redact: 12,
    read: 150,
    type_: 90,
    appear: 15,
    receive: 80,
    start_client: 4,
    scroll_back: 30,
    search: 6,
    look_around: 40,
    find_people: 4,
    upload: 8,
    look_at_picture: 30,
    visit: 8,
    meet: 3,
    answer_invite: 6,
    change_room: 6,
    ban: 3,
    use_new_device: 4,
    renew_keys: 6,
    query_keys: 20,
    share_key: 15,
    back_up_key: 10,
    note: 15,
    tell_apart: 6,
    rename: 1,
    err: 6,
}
"""The relative frequency of each action."""


def _stay(me: Person, room_id: str) -> None:
    me.stays.append(room_id)
    if len(me.stays) > STAYS:
        path = f"rooms/{quote(me.stays.popleft())}"
        me.desk.ask("POST", f"{path}/leave")
        me.desk.ask("POST", f"{path}/forget")


def _one_time_keys(device: Device, numbers: range | list[int]) -> dict[str, object]:
    signed = {device.user_id: {f"ed25519:{device.device_id}": "s" * 86}}
    key = {"key": "c" * 43, "signatures": signed}
    return {f"signed_curve25519:{number}": key for number in numbers}
