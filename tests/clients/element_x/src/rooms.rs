//! What happens in a timeline beyond sending, and what the list of rooms shows.

use anyhow::{anyhow, Context, Result};
use futures_util::StreamExt;
use matrix_sdk::media::{MediaFormat, MediaRequestParameters};
use matrix_sdk::room::edit::EditedContent;
use matrix_sdk::ruma::api::client::receipt::create_receipt::v3::ReceiptType;
use matrix_sdk::ruma::events::room::member::MembershipState;
use matrix_sdk::ruma::events::room::message::{
    MessageType, RoomMessageEventContent, RoomMessageEventContentWithoutRelation,
};
use matrix_sdk::ruma::{EventId, OwnedEventId, RoomId, UserId};
use matrix_sdk_ui::eyeball_im::Vector;
use matrix_sdk_ui::notification_client::{
    NotificationClient, NotificationEvent, NotificationProcessSetup, NotificationStatus,
};
use matrix_sdk_ui::room_list_service::filters;
use matrix_sdk_ui::timeline::{
    AttachmentConfig, AttachmentSource, RoomExt, TimelineEventItemId, TimelineFocus,
};
use serde_json::{json, Value};

use crate::{items, text, until, App};

fn event_id(given: &Value) -> Result<OwnedEventId> {
    Ok(EventId::parse(text(given, "eventId")?)?)
}

impl App {
    pub async fn in_timeline(&mut self, command: &str, given: &Value) -> Result<Value> {
        let timeline = self.timeline(given).await?;
        match command {
            "edit" => {
                let item = TimelineEventItemId::EventId(event_id(given)?);
                let content = RoomMessageEventContentWithoutRelation::text_plain(text(given, "body")?);
                timeline.edit(&item, EditedContent::RoomMessage(content)).await?;
            }
            "reply" => {
                let content = RoomMessageEventContentWithoutRelation::text_plain(text(given, "body")?);
                timeline.send_reply(content, event_id(given)?).await?;
            }
            "sendInThread" => {
                let thread = self.thread(given).await?;
                thread.send(RoomMessageEventContent::text_plain(text(given, "body")?).into()).await?;
            }
            "waitForThread" => {
                // The answer may come by sync while the first message is still to be fetched
                let thread = self.thread(given).await?;
                let (root, body) = (text(given, "eventId")?, text(given, "body")?);
                return until(body, async || {
                    thread.paginate_backwards(50).await?;
                    let shown = items(&thread).await;
                    let all = shown.as_array().cloned().unwrap_or_default();
                    let is_there = |it: &Value| it["body"] == json!(body) && !it["eventId"].is_null();
                    let is_whole = all.iter().any(|it| it["eventId"] == json!(root));
                    Ok((is_whole && all.iter().any(is_there)).then_some(shown))
                })
                .await;
            }
            "read" => return Ok(json!(timeline.mark_as_read(ReceiptType::Read).await?)),
            "pin" => return Ok(json!(timeline.room().pin_event(&event_id(given)?).await?)),
            "pinned" => {
                let pinned = timeline.room().timeline_builder().with_focus(TimelineFocus::PinnedEvents);
                let pinned = pinned.build().await?;
                return until("a pinned event", async || {
                    let shown = items(&pinned).await;
                    Ok(shown.as_array().is_some_and(|it| !it.is_empty()).then_some(shown))
                })
                .await;
            }
            "waitForReader" => {
                let (wanted, reader) = (json!(event_id(given)?), json!(text(given, "userId")?));
                let is_so = |it: &Value| {
                    let readers = it["readers"].as_array();
                    it["eventId"] == wanted && readers.is_some_and(|all| all.contains(&reader))
                };
                return self.wait_for_item(given, "the reader", is_so).await;
            }
            "waitForRedaction" => {
                let wanted = json!(event_id(given)?);
                let is_so = |it: &Value| it["eventId"] == wanted && it["isRedacted"] == json!(true);
                return self.wait_for_item(given, "the redaction", is_so).await;
            }
            "paginateToStart" => {
                let mut pages = 1;
                while !timeline.paginate_backwards(50).await? {
                    pages += 1;
                }
                return Ok(json!(pages));
            }
            "attach" => {
                let source = AttachmentSource::Data {
                    bytes: text(given, "data")?.as_bytes().to_vec(),
                    filename: text(given, "name")?.to_owned(),
                };
                let kind = "text/plain".parse()?;
                timeline.send_attachment(source, kind, AttachmentConfig::default()).await?;
            }
            "download" => {
                let items = timeline.items().await;
                let wanted = event_id(given)?;
                let found = items.iter().filter_map(|it| it.as_event());
                let found = found.into_iter().find(|it| it.event_id() == Some(&wanted));
                let message = found.and_then(|it| it.content().as_message()).context("no message")?;
                let MessageType::File(file) = message.msgtype() else {
                    return Err(anyhow!("not a file"));
                };
                let request =
                    MediaRequestParameters { source: file.source.clone(), format: MediaFormat::File };
                let data = self.client()?.media().get_media_content(&request, false).await?;
                return Ok(json!(String::from_utf8(data)?));
            }
            other => return Err(anyhow!("{other} is not a command")),
        }
        Ok(Value::Null)
    }

    async fn thread(&mut self, given: &Value) -> Result<matrix_sdk_ui::Timeline> {
        let room = self.room(&RoomId::parse(text(given, "roomId")?)?).await?;
        let focus = TimelineFocus::Thread { root_event_id: event_id(given)? };
        Ok(room.timeline_builder().with_focus(focus).build().await?)
    }

    /// The rooms of the list, as many pages as are wanted, once there are as many as are expected.
    pub async fn room_list(&mut self, given: &Value) -> Result<Value> {
        let service = self.sync.as_ref().context("not started")?.room_list_service();
        let list = service.all_rooms().await?;
        let (stream, controller) = list.entries_with_dynamic_adapters(20);
        let mut stream = Box::pin(stream);
        controller.set_filter(match given["filter"].as_str() {
            Some("invites") => Box::new(filters::new_filter_invite()),
            Some("joined") => Box::new(filters::new_filter_joined()),
            Some(name) => Box::new(filters::new_filter_normalized_match_room_name(name)),
            None => Box::new(filters::new_filter_non_left()),
        });
        let expected = given["expected"].as_u64().unwrap_or(1) as usize;
        let mut rooms = Vector::new();
        while rooms.len() != expected {
            for change in stream.next().await.context("the list has ended")? {
                change.apply(&mut rooms);
            }
            if rooms.len() < expected {
                controller.add_one_page();
            }
        }
        let mut shown = Vec::new();
        for item in rooms {
            let room = item.into_inner();
            shown.push(json!({
                "roomId": room.room_id(),
                "name": room.cached_display_name().map(|it| it.to_string()),
                "unread": room.unread_notification_counts().notification_count,
            }));
        }
        Ok(json!(shown))
    }

    pub async fn among_users(&mut self, command: &str, given: &Value) -> Result<Value> {
        let client = self.client()?;
        match command {
            "ignore" => client.account().ignore_user(&UserId::parse(text(given, "userId")?)?).await?,
            "ignored" => {
                let user_id = UserId::parse(text(given, "userId")?)?;
                return until("the ignored user", async || {
                    Ok(client.is_user_ignored(&user_id).await.then_some(json!(true)))
                })
                .await;
            }
            "letIn" => {
                let room = self.room(&RoomId::parse(text(given, "roomId")?)?).await?;
                let user_id = UserId::parse(text(given, "userId")?)?;
                until("the knock", async || {
                    let member = room.get_member(&user_id).await?;
                    let knocks = member.is_some_and(|it| *it.membership() == MembershipState::Knock);
                    Ok(knocks.then_some(()))
                })
                .await?;
                room.invite_user_by_id(&user_id).await?;
            }
            "leave" => self.room(&RoomId::parse(text(given, "roomId")?)?).await?.leave().await?,
            "knock" => {
                client.knock(text(given, "roomId")?.try_into()?, None, vec![]).await?;
            }
            "searchUsers" => {
                let found = client.search_users(text(given, "text")?, 10).await?.results;
                return Ok(found.iter().map(|it| json!(it.user_id)).collect());
            }
            "subscribeThread" => {
                let room = self.room(&RoomId::parse(text(given, "roomId")?)?).await?;
                room.subscribe_thread(event_id(given)?, None).await?;
                let found = room.fetch_thread_subscription(event_id(given)?).await?;
                return Ok(json!(found.map(|it| it.automatic)));
            }
            _ => {
                let room_id = RoomId::parse(text(given, "roomId")?)?;
                let setup = NotificationProcessSetup::MultipleProcesses;
                let notifications = NotificationClient::new(client.clone(), setup).await?;
                let status = notifications.get_notification(&room_id, &event_id(given)?).await?;
                let NotificationStatus::Event(item) = status else {
                    return Err(anyhow!("{status:?}"));
                };
                let event_type = match &item.event {
                    NotificationEvent::Timeline(event) => event.event_type().to_string(),
                    NotificationEvent::Invite(_) => "invite".to_owned(),
                };
                return Ok(json!({
                    "type": event_type,
                    "room": item.room_computed_display_name,
                    "isNoisy": item.is_noisy,
                }));
            }
        }
        Ok(Value::Null)
    }
}
