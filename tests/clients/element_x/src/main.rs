//! A client of matrix-sdk and matrix-sdk-ui, moved by lines of JSON on standard input, as the clients of
//! ../js are: {"id", "command", "given"}, answered by {"id", "result"} or {"id", "error"}.
//!
//! - open {baseUrl, folder, anyCertificate}: discover the server; the answer is what the SDK found
//! - link {redirectUri, create}: the address to which the client sends its user; complete {url}
//! - session, restore {clientId, user}; refresh, logout, whoami
//! - start, stop: the SyncService
//! - createRoom {name, encrypted, invite, knock}, join {roomId}, waitForMember {roomId, userId}, rooms
//! - send, react, redact {roomId, ...}; timeline, waitFor {roomId, body}
//! - edit, reply, sendInThread, waitForThread, pin {roomId, eventId, ...}; read, pinned, paginateToStart
//! - waitForReader {roomId, eventId, userId}, waitForRedaction {roomId, eventId}
//! - attach {roomId, name, data}, download {roomId, eventId}
//! - roomList {filter, expected}, leave, knock, letIn, ignore, ignored, searchUsers, subscribeThread, notification
//! - qrLogin, qrGrant {code}: one of two devices that meet; qrSee {what}, qrCheck {checkCode}, qrConfirm
//! - enableRecovery, recover {key}, encryptionState
//! - verify: ask own other device; accept {}: what was asked; startSas, emoji, confirm, waitVerified

#![recursion_limit = "256"]

mod qr;
mod rooms;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use matrix_sdk::authentication::oauth::registration::{
    ApplicationType, ClientMetadata, Localized, OAuthGrantType,
};
use matrix_sdk::authentication::oauth::{ClientId, ClientRegistrationData, OAuthSession, UserSession};
use matrix_sdk::encryption::verification::{SasVerification, VerificationRequest};
use matrix_sdk::encryption::{BackupDownloadStrategy, EncryptionSettings};
use matrix_sdk::ruma::api::client::discovery::get_authorization_server_metadata::v1::Prompt;
use matrix_sdk::ruma::api::client::room::create_room::v3::Request as CreateRoom;
use matrix_sdk::ruma::events::key::verification::request::ToDeviceKeyVerificationRequestEvent;
use matrix_sdk::ruma::events::room::encryption::RoomEncryptionEventContent;
use matrix_sdk::ruma::events::room::join_rules::{JoinRule, RoomJoinRulesEventContent};
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::events::room::member::MembershipState;
use matrix_sdk::ruma::events::InitialStateEvent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{EventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use matrix_sdk::sliding_sync::VersionBuilder;
use matrix_sdk::store::RoomLoadSettings;
use matrix_sdk::Client;
use matrix_sdk_ui::sync_service::SyncService;
use matrix_sdk_ui::timeline::{RoomExt, Timeline, TimelineEventItemId};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::{sleep, timeout};
use url::Url;

const WAIT: Duration = Duration::from_secs(25);
const STEP: Duration = Duration::from_millis(100);

/// What was asked of this device: the user and the flow of each verification request.
type Asked = Arc<Mutex<Vec<(OwnedUserId, String)>>>;

#[derive(Default)]
struct App {
    client: Option<Client>,
    sync: Option<SyncService>,
    timelines: HashMap<OwnedRoomId, Arc<Timeline>>,
    asked: Asked,
    request: Option<VerificationRequest>,
    sas: Option<SasVerification>,
    login: qr::Login,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut app = App::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let question: Value = serde_json::from_str(&line)?;
        let command = question["command"].as_str().unwrap_or_default();
        let answer = match timeout(WAIT + WAIT / 10, app.perform(command, &question["given"])).await {
            Ok(Ok(result)) => json!({"id": question["id"], "result": result}),
            Ok(Err(error)) => json!({"id": question["id"], "error": format!("{error:?}")}),
            Err(_) => json!({"id": question["id"], "error": format!("{command} takes too long")}),
        };
        out.write_all(format!("{answer}\n").as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

fn text<'a>(given: &'a Value, key: &str) -> Result<&'a str> {
    given[key].as_str().with_context(|| format!("{key} is missing"))
}

/// Call `probe` until it finds something.
async fn until<T, F>(what: &str, mut probe: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let found = timeout(WAIT, async {
        loop {
            if let Some(found) = probe().await? {
                return Ok::<T, anyhow::Error>(found);
            }
            sleep(STEP).await;
        }
    });
    found.await.map_err(|_| anyhow!("waited in vain for {what}"))?
}

fn metadata(redirect_uri: &Url) -> Result<ClientRegistrationData> {
    // A program on the same computer registers without the port, which it learns at each login
    let mut registered = redirect_uri.clone();
    registered.set_port(None).map_err(|()| anyhow!("{redirect_uri} can't have a port"))?;
    let grants = vec![
        OAuthGrantType::AuthorizationCode { redirect_uris: vec![registered] },
        OAuthGrantType::DeviceCode,
    ];
    let home = Localized::new(Url::parse("https://example.com/")?, []);
    let mut metadata = ClientMetadata::new(ApplicationType::Native, grants, home);
    metadata.client_name = Some(Localized::new("Example".to_owned(), []));
    Ok(Raw::new(&metadata)?.into())
}

impl App {
    fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("not opened")
    }

    async fn perform(&mut self, command: &str, given: &Value) -> Result<Value> {
        match command {
            "open" => self.open(given).await,
            "link" => self.link(given).await,
            "complete" => {
                let url = Url::parse(text(given, "url")?)?;
                self.client()?.oauth().finish_login(url.into()).await?;
                self.user().await
            }
            "session" => {
                let session = self.client()?.oauth().full_session().context("no session")?;
                Ok(json!({"clientId": session.client_id.as_str(), "user": session.user}))
            }
            "restore" => self.restore(given).await,
            "refresh" => {
                self.client()?.oauth().refresh_access_token().await?;
                self.user().await
            }
            "logout" => {
                self.client()?.oauth().logout().await?;
                Ok(Value::Null)
            }
            "whoami" => self.user().await,
            "start" => {
                let sync = match self.sync.take() {
                    Some(sync) => sync,
                    None => SyncService::builder(self.client()?.clone()).with_offline_mode().build().await?,
                };
                sync.start().await;
                self.sync = Some(sync);
                Ok(Value::Null)
            }
            "stop" => {
                self.sync.as_ref().context("not started")?.stop().await;
                Ok(Value::Null)
            }
            "createRoom" => self.create_room(given).await,
            "join" => {
                let room_id = RoomId::parse(text(given, "roomId")?)?;
                self.room(&room_id).await?.join().await?;
                Ok(Value::Null)
            }
            "waitForMember" => {
                let room = self.room(&RoomId::parse(text(given, "roomId")?)?).await?;
                let user_id = UserId::parse(text(given, "userId")?)?;
                until("the member", async || {
                    let member = room.get_member(&user_id).await?;
                    let is_joined = member.is_some_and(|it| *it.membership() == MembershipState::Join);
                    Ok(is_joined.then_some(Value::Null))
                })
                .await
            }
            "rooms" => {
                let rooms = self.client()?.rooms();
                let listed = rooms.iter().map(|room| {
                    json!({
                        "roomId": room.room_id(),
                        "name": room.name(),
                        "state": format!("{:?}", room.state()),
                        "isEncrypted": room.encryption_state().is_encrypted(),
                    })
                });
                Ok(listed.collect())
            }
            "send" => {
                let timeline = self.timeline(given).await?;
                timeline.send(RoomMessageEventContent::text_plain(text(given, "body")?).into()).await?;
                Ok(Value::Null)
            }
            "react" => {
                let item = TimelineEventItemId::EventId(EventId::parse(text(given, "eventId")?)?);
                self.timeline(given).await?.toggle_reaction(&item, text(given, "key")?).await?;
                Ok(Value::Null)
            }
            "redact" => {
                let item = TimelineEventItemId::EventId(EventId::parse(text(given, "eventId")?)?);
                self.timeline(given).await?.redact(&item, None).await?;
                Ok(Value::Null)
            }
            "timeline" => Ok(items(&*self.timeline(given).await?).await),
            "waitFor" => self.wait_for(given).await,
            "enableRecovery" => {
                let encryption = self.client()?.encryption();
                encryption.wait_for_e2ee_initialization_tasks().await;
                Ok(json!(encryption.recovery().enable().wait_for_backups_to_upload().await?))
            }
            "recover" => {
                let encryption = self.client()?.encryption();
                encryption.wait_for_e2ee_initialization_tasks().await;
                encryption.recovery().recover(text(given, "key")?).await?;
                Ok(Value::Null)
            }
            "encryptionState" => {
                let encryption = self.client()?.encryption();
                encryption.wait_for_e2ee_initialization_tasks().await;
                Ok(json!({
                    "verification": format!("{:?}", encryption.verification_state().get()),
                    "recovery": format!("{:?}", encryption.recovery().state()),
                    "backup": format!("{:?}", encryption.backups().state()),
                }))
            }
            "qrLogin" | "qrGrant" | "qrSee" | "qrCheck" | "qrConfirm" => self.qr(command, given).await,
            "edit" | "reply" | "sendInThread" | "waitForThread" | "read" | "pin" | "pinned"
            | "paginateToStart" | "waitForReader" | "waitForRedaction" | "attach" | "download" => self.in_timeline(command, given).await,
            "roomList" => self.room_list(given).await,
            "ignore" | "ignored" | "letIn" | "leave" | "knock" | "searchUsers" | "subscribeThread" | "notification" => {
                self.among_users(command, given).await
            }
            "verify" => self.verify().await,
            "accept" => self.accept().await,
            "startSas" => {
                let request = self.request.clone().context("no request")?;
                until("the other device", async || Ok(request.is_ready().then_some(()))).await?;
                self.sas = request.start_sas().await?;
                Ok(json!(self.sas.is_some()))
            }
            "emoji" => self.emoji().await,
            "confirm" => {
                self.sas.as_ref().context("no SAS")?.confirm().await?;
                Ok(Value::Null)
            }
            "waitVerified" => {
                let state = self.client()?.encryption().verification_state();
                until("the verification", async || {
                    let state = format!("{:?}", state.get());
                    Ok((state == "Verified").then_some(Value::Null))
                })
                .await
            }
            other => Err(anyhow!("{other} is not a command")),
        }
    }

    async fn open(&mut self, given: &Value) -> Result<Value> {
        let encryption = EncryptionSettings {
            auto_enable_cross_signing: true,
            backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
            auto_enable_backups: true,
        };
        let mut builder = Client::builder();
        if given["anyCertificate"] == json!(true) {
            builder = builder.disable_ssl_verification();
        }
        let client = builder
            .server_name_or_homeserver_url(text(given, "baseUrl")?)
            .sqlite_store(text(given, "folder")?, None)
            .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
            .handle_refresh_tokens()
            .with_encryption_settings(encryption)
            .build()
            .await?;
        let asked = self.asked.clone();
        client.add_event_handler(move |event: ToDeviceKeyVerificationRequestEvent| async move {
            let flow = event.content.transaction_id.to_string();
            asked.lock().expect("no panic while locked").push((event.sender, flow));
        });
        let metadata = client.oauth().server_metadata().await?;
        let found = json!({
            "slidingSync": format!("{:?}", client.sliding_sync_version()),
            "issuer": metadata.issuer,
            "canSignUp": metadata.prompt_values_supported.contains(&Prompt::Create),
            "accountManagementUri": metadata.account_management_uri,
        });
        self.client = Some(client);
        Ok(found)
    }

    async fn link(&self, given: &Value) -> Result<Value> {
        let redirect_uri = Url::parse(text(given, "redirectUri")?)?;
        let data = metadata(&redirect_uri)?;
        let mut builder = self.client()?.oauth().login(redirect_uri, None, Some(data), None);
        if given["create"] == json!(true) {
            builder = builder.prompt(vec![Prompt::Create]);
        }
        Ok(json!(builder.build().await?.url))
    }

    async fn restore(&self, given: &Value) -> Result<Value> {
        let user: UserSession = serde_json::from_value(given["user"].clone())?;
        let session = OAuthSession { client_id: ClientId::new(text(given, "clientId")?.to_owned()), user };
        self.client()?.oauth().restore_session(session, RoomLoadSettings::default()).await?;
        self.user().await
    }

    async fn user(&self) -> Result<Value> {
        let me = self.client()?.whoami().await?;
        Ok(json!({"userId": me.user_id, "deviceId": me.device_id}))
    }

    async fn create_room(&self, given: &Value) -> Result<Value> {
        let mut request = CreateRoom::new();
        request.name = Some(text(given, "name")?.to_owned());
        if given["encrypted"] == json!(true) {
            let content = RoomEncryptionEventContent::with_recommended_defaults();
            request.initial_state.push(InitialStateEvent::with_empty_state_key(content).to_raw_any());
        }
        if given["knock"] == json!(true) {
            let content = RoomJoinRulesEventContent::new(JoinRule::Knock);
            request.initial_state.push(InitialStateEvent::with_empty_state_key(content).to_raw_any());
        }
        for user_id in given["invite"].as_array().into_iter().flatten() {
            request.invite.push(UserId::parse(user_id.as_str().unwrap_or_default())?);
        }
        Ok(json!(self.client()?.create_room(request).await?.room_id()))
    }

    /// Wait until the client knows a room.
    async fn room(&self, room_id: &RoomId) -> Result<matrix_sdk::Room> {
        let client = self.client()?;
        until("the room", async || Ok(client.get_room(room_id))).await
    }

    async fn timeline(&mut self, given: &Value) -> Result<Arc<Timeline>> {
        let room_id = RoomId::parse(text(given, "roomId")?)?;
        if let Some(timeline) = self.timelines.get(&room_id) {
            return Ok(timeline.clone());
        }
        let timeline = Arc::new(self.room(&room_id).await?.timeline().await?);
        if let Some(sync) = &self.sync {
            sync.room_list_service().set_room_subscriptions(&[&room_id]).await;
        }
        self.timelines.insert(room_id, timeline.clone());
        Ok(timeline)
    }

    /// Wait until a message is in the timeline and not just a local echo; the answer is its item.
    async fn wait_for(&mut self, given: &Value) -> Result<Value> {
        let body = text(given, "body")?;
        let is_so = |it: &Value| it["body"] == json!(body) && !it["eventId"].is_null();
        self.wait_for_item(given, body, is_so).await
    }

    /// Wait until an event is shown as it is expected; the answer is its item.
    pub async fn wait_for_item(
        &mut self,
        given: &Value,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let timeline = self.timeline(given).await?;
        let mut last = Value::Null;
        let found = until(what, async || {
            last = items(&timeline).await;
            let mut all = last.as_array().into_iter().flatten();
            Ok(all.find(|it| is_so(it)).cloned())
        });
        let found = found.await;
        found.with_context(|| last.to_string())
    }

    /// Ask the other devices of the user to verify this one.
    async fn verify(&mut self) -> Result<Value> {
        let client = self.client()?;
        let user_id = client.user_id().context("not logged in")?.to_owned();
        let identity = until("the identity", async || {
            Ok(client.encryption().request_user_identity(&user_id).await?)
        });
        self.request = Some(identity.await?.request_verification().await?);
        Ok(Value::Null)
    }

    /// Accept the last verification request.
    async fn accept(&mut self) -> Result<Value> {
        let client = self.client()?;
        let request = until("a request", async || {
            let last = self.asked.lock().expect("no panic while locked").last().cloned();
            let Some((user_id, flow)) = last else { return Ok(None) };
            Ok(client.encryption().get_verification_request(&user_id, flow).await)
        });
        let request = request.await?;
        request.accept().await?;
        self.request = Some(request);
        Ok(Value::Null)
    }

    /// Wait for the emoji that both devices show, accepting what the other one has started.
    async fn emoji(&mut self) -> Result<Value> {
        if self.sas.is_none() {
            let client = self.client()?;
            let request = self.request.clone().context("no request")?;
            let begun = until("the start of SAS", async || {
                let (user_id, flow) = (request.other_user_id(), request.flow_id());
                Ok(client.encryption().get_verification(user_id, flow).await.and_then(|it| it.sas()))
            });
            let sas = begun.await?;
            sas.accept().await?;
            self.sas = Some(sas);
        }
        let sas = self.sas.clone().context("no SAS")?;
        let emoji = until("emoji", async || Ok(sas.emoji())).await?;
        Ok(emoji.iter().map(|it| json!(it.description)).collect())
    }
}

/// The events of a timeline.
async fn items(timeline: &Timeline) -> Value {
    let items = timeline.items().await;
    let events = items.iter().filter_map(|item| item.as_event());
    let shown = events.map(|event| {
        let content = event.content();
        let reactions = content.reactions().map(|it| it.keys().cloned().collect::<Vec<_>>());
        json!({
            "eventId": event.event_id().filter(|_| !event.is_local_echo()),
            "sender": event.sender(),
            "body": content.as_message().map(|it| it.body().to_owned()),
            "isUndecryptable": content.is_unable_to_decrypt(),
            "isRedacted": content.is_redacted(),
            "isEncrypted": event.encryption_info().is_some(),
            "reactions": reactions,
            "isReply": content.in_reply_to().is_some(),
            "threadLength": content.thread_summary().map(|it| it.num_replies),
            "readers": event.read_receipts().keys().collect::<Vec<_>>(),
        })
    });
    shown.collect()
}
