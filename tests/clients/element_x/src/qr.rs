//! Login of a new device by an old one, of which either shows a QR code that the other scans.

use std::sync::{Arc, Mutex};

use anyhow::{anyhow, Context, Result};
use futures_util::{Stream, StreamExt};
use matrix_sdk::authentication::oauth::qrcode::{
    CheckCodeSender, ContinuationMessageSender, GeneratedQrProgress, GrantLoginProgress, LoginProgress,
    QrCodeData, QrProgress,
};
use matrix_sdk::Client;
use serde_json::{json, Map, Value};
use url::Url;

use crate::{metadata, text, until, App};

/// How far a login is: what the device shows, and what it waits for.
#[derive(Clone, Default)]
pub struct Login(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    shown: Map<String, Value>,
    check: Option<CheckCodeSender>,
    consent: Option<ContinuationMessageSender>,
}

/// What both sides of a QR code report, whichever of the two is shown.
trait Report {
    fn report(self, login: &Login);
}

impl Report for QrProgress {
    fn report(self, login: &Login) {
        login.show("checkCode", json!(self.check_code));
    }
}

impl Report for GeneratedQrProgress {
    fn report(self, login: &Login) {
        match self {
            Self::QrReady(data) => login.show("code", json!(data.to_bytes())),
            Self::QrScanned(sender) => {
                login.0.lock().expect("no panic while locked").check = Some(sender);
                login.show("scanned", json!(true));
            }
        }
    }
}

/// Report all steps of a login, as they come.
fn follow<S: Send>(
    mut steps: impl Stream<Item = S> + Send + Unpin + 'static,
    report: impl Fn(S) + Send + 'static,
) {
    tokio::spawn(async move {
        while let Some(step) = steps.next().await {
            report(step);
        }
    });
}

impl Login {
    fn show(&self, key: &str, value: Value) {
        self.0.lock().expect("no panic while locked").shown.insert(key.to_owned(), value);
    }

    fn new_device<Q: Report>(&self, progress: LoginProgress<Q>) {
        match progress {
            LoginProgress::EstablishingSecureChannel(it) => it.report(self),
            LoginProgress::WaitingForToken { user_code } => self.show("userCode", json!(user_code)),
            _ => {}
        }
    }

    fn old_device<Q: Report>(&self, progress: GrantLoginProgress<Q>) {
        match progress {
            GrantLoginProgress::EstablishingSecureChannel(it) => it.report(self),
            GrantLoginProgress::WaitingForAuth { verification_uri, continuation_sender } => {
                self.0.lock().expect("no panic while locked").consent = Some(continuation_sender);
                self.show("verificationUri", json!(verification_uri));
            }
            _ => {}
        }
    }

    /// Log in as a new device; without `scanned` it shows the QR code.
    async fn log_in(&self, client: Client, scanned: Option<QrCodeData>) -> Result<()> {
        let data = metadata(&Url::parse("http://127.0.0.1/callback")?)?;
        let (oauth, login) = (client.oauth(), self.clone());
        match scanned {
            Some(code) => {
                let future = oauth.login_with_qr_code(Some(&data)).scan(&code);
                follow(future.subscribe_to_progress(), move |step| login.new_device(step));
                future.await?;
            }
            None => {
                let future = oauth.login_with_qr_code(Some(&data)).generate();
                follow(future.subscribe_to_progress(), move |step| login.new_device(step));
                future.await?;
            }
        }
        Ok(())
    }

    /// Let a new device in; without `scanned` the old one shows the QR code.
    async fn grant(&self, client: Client, scanned: Option<QrCodeData>) -> Result<()> {
        let (oauth, login) = (client.oauth(), self.clone());
        match scanned {
            Some(code) => {
                let future = oauth.grant_login_with_qr_code().scan(&code);
                follow(future.subscribe_to_progress(), move |step| login.old_device(step));
                future.await?;
            }
            None => {
                let future = oauth.grant_login_with_qr_code().generate();
                follow(future.subscribe_to_progress(), move |step| login.old_device(step));
                future.await?;
            }
        }
        Ok(())
    }
}

impl App {
    pub async fn qr(&mut self, command: &str, given: &Value) -> Result<Value> {
        match command {
            "qrLogin" | "qrGrant" => {
                let bytes: Option<Vec<u8>> = serde_json::from_value(given["code"].clone())?;
                let scanned = bytes.map(|it| QrCodeData::from_bytes(&it)).transpose()?;
                self.login = Login::default();
                let (login, client) = (self.login.clone(), self.client()?.clone());
                let is_new = command == "qrLogin";
                tokio::spawn(async move {
                    let ended = if is_new {
                        login.log_in(client, scanned).await
                    } else {
                        login.grant(client, scanned).await
                    };
                    match ended {
                        Ok(()) => login.show("done", json!(true)),
                        Err(error) => login.show("error", json!(format!("{error:?}"))),
                    }
                });
                Ok(Value::Null)
            }
            "qrSee" => {
                let key = text(given, "what")?;
                until(key, async || {
                    let state = self.login.0.lock().expect("no panic while locked");
                    match state.shown.get("error") {
                        Some(error) if key != "error" => Err(anyhow!("{error}")),
                        _ => Ok(state.shown.get(key).cloned()),
                    }
                })
                .await
            }
            "qrCheck" => {
                let code: u8 = serde_json::from_value(given["checkCode"].clone())?;
                let sender = self.login.0.lock().expect("no panic while locked").check.take();
                sender.context("no check code is expected")?.send(code).await?;
                Ok(Value::Null)
            }
            _ => {
                let sender = self.login.0.lock().expect("no panic while locked").consent.take();
                sender.context("no consent is expected")?.confirm().await?;
                Ok(Value::Null)
            }
        }
    }
}
