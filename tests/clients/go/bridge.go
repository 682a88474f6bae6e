// A bridge with mautrix that encrypts, and a user who talks with it, in one program.
//
// The bridge is in appservice mode: its bot has a device without a login (MSC4190), and messages to
// it, the number of its keys and changed devices come with the events (MSC2409, MSC3202). It answers
// what it can decrypt. The program prints a line for each thing that works, and fails at the first
// that does not: test_mautrix_go_bridge.py reads the lines.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	password = "correct horse battery staple"
	claims   = 60
	patience = 20 * time.Second
	longest  = 90 * time.Second
)

func check(err error, what string) {
	if err != nil {
		fmt.Println(what, "failed:", err)
		os.Exit(1)
	}
}

// device is a client that encrypts and decrypts.
type device struct {
	client  *mautrix.Client
	machine *crypto.OlmMachine
	heard   chan string
}

func newDevice(ctx context.Context, client *mautrix.Client, state any, uploadedKeys int) *device {
	log := zerolog.Nop()
	machine := crypto.NewOlmMachine(client, &log, crypto.NewMemoryStore(nil), state.(crypto.StateStore))
	check(machine.Load(ctx), "loading keys")
	check(machine.ShareKeys(ctx, uploadedKeys), "uploading keys")
	return &device{client, machine, make(chan string, 100)}
}

func (it *device) say(ctx context.Context, room id.RoomID, body string) {
	content := event.MessageEventContent{MsgType: event.MsgText, Body: body}
	encrypted, err := it.machine.EncryptMegolmEvent(ctx, room, event.EventMessage, &content)
	if err != nil { // there is no session yet, or not for all devices
		members, err := it.client.JoinedMembers(ctx, room)
		check(err, "listing members")
		users := []id.UserID{}
		for user := range members.Joined {
			users = append(users, user)
		}
		check(it.machine.ShareGroupSession(ctx, room, users), "sharing a session")
		encrypted, err = it.machine.EncryptMegolmEvent(ctx, room, event.EventMessage, &content)
		check(err, "encrypting")
	}
	_, err = it.client.SendMessageEvent(ctx, room, event.EventEncrypted, encrypted)
	check(err, "sending")
}

func (it *device) read(ctx context.Context, sent *event.Event) string {
	content := sent.Content.AsEncrypted()
	it.machine.WaitForSession(ctx, sent.RoomID, content.SenderKey, content.SessionID, patience)
	decrypted, err := it.machine.DecryptMegolmEvent(ctx, sent)
	check(err, "decrypting")
	return decrypted.Content.AsMessage().Body
}

func (it *device) hear(body string) {
	deadline := time.After(patience)
	for {
		select {
		case heard := <-it.heard:
			if heard == body {
				return
			}
		case <-deadline:
			check(fmt.Errorf("%q has not come", body), "waiting")
		}
	}
}

// startBridge returns the bot's device; it joins where it is invited, and answers.
func startBridge(ctx context.Context, url string, port uint16, asToken, hsToken string) *device {
	service, err := appservice.CreateFull(appservice.CreateOpts{
		Registration: &appservice.Registration{
			ID: "irc", AppToken: asToken, ServerToken: hsToken, SenderLocalpart: "_irc_bot",
			EphemeralEvents: true, MSC3202: true,
		},
		HomeserverDomain: "localhost", HomeserverURL: url,
		HostConfig: appservice.HostConfig{Hostname: "127.0.0.1", Port: port},
	})
	check(err, "creating the bridge")
	go service.Start()
	check(service.BotIntent().EnsureRegistered(ctx), "registering the bot")
	client := service.NewMautrixClient(service.BotMXID())
	check(client.CreateDeviceMSC4190(ctx, "", "bridge"), "creating a device")
	bot := newDevice(ctx, client, service.StateStore, -1)
	_, err = bot.machine.GenerateAndVerifyWithRecoveryKey(ctx)
	check(err, "cross-signing")

	events := appservice.NewEventProcessor(service)
	bot.machine.AddAppserviceListener(events)
	events.On(event.StateMember, func(ctx context.Context, member *event.Event) {
		isInvite := member.Content.AsMember().Membership == event.MembershipInvite
		if isInvite && member.GetStateKey() == string(client.UserID) {
			_, err := client.JoinRoomByID(ctx, member.RoomID)
			check(err, "joining")
			state, err := client.State(ctx, member.RoomID)
			check(err, "reading the state")
			for _, ofType := range state {
				for _, one := range ofType {
					mautrix.UpdateStateStore(ctx, service.StateStore, one)
				}
			}
		}
	})
	events.On(event.EventEncrypted, func(ctx context.Context, sent *event.Event) {
		if sent.Sender != client.UserID { // not here: the session comes by the same processor
			go func() { bot.say(ctx, sent.RoomID, "echo: "+bot.read(ctx, sent)) }()
		}
	})
	events.Start(ctx)
	return bot
}

// startUser returns a device of a user, which syncs.
func startUser(ctx context.Context, url, name string, isNew bool) *device {
	client, err := mautrix.NewClient(url, "", "")
	check(err, "creating a client")
	if isNew {
		_, err = client.RegisterDummy(ctx, &mautrix.ReqRegister[any]{Username: name, Password: password})
		check(err, "registering")
	}
	_, err = client.Login(ctx, &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Password: password, StoreCredentials: true,
		Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: name},
	})
	check(err, "logging in")
	client.StateStore = mautrix.NewMemoryStateStore()
	user := newDevice(ctx, client, client.StateStore, 0)
	syncer := client.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnSync(user.machine.ProcessSyncResponse)
	syncer.OnEvent(client.StateStoreSyncHandler)
	syncer.OnEventType(event.StateMember, user.machine.HandleMemberEvent)
	syncer.OnEventType(event.EventEncrypted, func(ctx context.Context, sent *event.Event) {
		if sent.Sender != client.UserID {
			go func() { user.heard <- user.read(ctx, sent) }()
		}
	})
	go func() { check(client.SyncWithContext(ctx), "syncing") }()
	return user
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	url, asToken, hsToken := os.Args[1], os.Args[3], os.Args[4]
	port, err := strconv.ParseUint(os.Args[2], 10, 16)
	check(err, "reading the port")
	bot := startBridge(ctx, url, uint16(port), asToken, hsToken)
	alice := startUser(ctx, url, "alice", true)
	encryption := event.Content{Raw: map[string]any{"algorithm": id.AlgorithmMegolmV1}}
	room, err := alice.client.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Invite:       []id.UserID{bot.client.UserID},
		InitialState: []*event.Event{{Type: event.StateEncryption, Content: encryption}},
	})
	check(err, "creating a room")
	for joined := 0; joined < 2; time.Sleep(50 * time.Millisecond) {
		members, err := alice.client.JoinedMembers(ctx, room.RoomID)
		check(err, "listing members")
		joined = len(members.Joined)
	}

	for number := range 3 {
		body := fmt.Sprintf("hello %d", number)
		alice.say(ctx, room.RoomID, body)
		alice.hear("echo: " + body)
	}
	fmt.Println("the bridge reads and writes")

	second := startUser(ctx, url, "alice", false)
	for number := 0; ; number++ { // the bridge needs a moment to notice the device
		body := fmt.Sprintf("to both %d", number)
		alice.say(ctx, room.RoomID, body)
		alice.hear("echo: " + body)
		devices, err := bot.machine.CryptoStore.GetDevices(ctx, alice.client.UserID)
		check(err, "reading devices")
		if devices[second.client.DeviceID] != nil {
			alice.say(ctx, room.RoomID, "last")
			second.hear("echo: last")
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println("the bridge notices a new device")

	wanted := map[id.DeviceID]id.KeyAlgorithm{bot.client.DeviceID: id.KeyAlgorithmSignedCurve25519}
	for range claims {
		_, err := alice.client.ClaimKeys(ctx, &mautrix.ReqClaimKeys{
			OneTimeKeys: map[id.UserID]map[id.DeviceID]id.KeyAlgorithm{bot.client.UserID: wanted},
		})
		check(err, "claiming")
	}
	for left := 0; left < 50; time.Sleep(50 * time.Millisecond) {
		keys, err := bot.client.UploadKeys(ctx, &mautrix.ReqUploadKeys{})
		check(err, "counting keys")
		left = keys.OneTimeKeyCounts.SignedCurve25519
	}
	fmt.Println("the bridge has keys again")
}
