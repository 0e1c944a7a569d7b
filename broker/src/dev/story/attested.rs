//! The step at the socket in which a process that is nobody's client exchanges its user's token.

use super::{Told, Trouble, steps::Stage};
use crate::dev::layout::{DESK, DESK_TOOL};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Output, Stdio},
};
use tokio::{io::AsyncWriteExt as _, process::Command};

impl Stage<'_> {
    /// A process without any secret swaps alice's token in one hop, because of what it is; the same command as another
    /// program gets nothing for the same token.
    pub(super) async fn exchange_attested(&self) -> Result<Told<()>, Trouble> {
        let own = std::env::current_exe()?;
        let output = self.exchange_as(&own).await?;
        if !output.status.success() {
            return Err(Trouble::new(String::from_utf8_lossy(&output.stderr)));
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        let claims = claims(text("access_token"))?;
        let actor = claims.pointer("/act/sub").and_then(Value::as_str).unwrap_or_default();
        let key = claims.pointer("/cnf/jkt").and_then(Value::as_str).unwrap_or_default();
        if actor != DESK || key.is_empty() {
            return Err(Trouble::new(format!("it was given {claims} instead of a bound token for {DESK}")));
        }
        let neighbour = self.environment.files.folder.join("neighbour");
        // Another program, byte for byte the same: what counts is where it lies.
        if std::fs::hard_link(&own, &neighbour).is_err() {
            std::fs::copy(&own, &neighbour)?;
        }
        let refused = self.exchange_as(&neighbour).await?;
        std::fs::remove_file(&neighbour)?;
        if refused.status.code() != Some(DENIED) {
            return Err(Trouble::new(format!("its neighbour was not refused but {refused:?}")));
        }
        Ok(Told::new((), "a process that is nobody's client swapped alice's token; its neighbour could not")
            .fact("act", actor)
            .fact("bound to", key)
            .fact("decision", text("decision_id")))
    }

    /// This program as a process of its own, with alice's token on its standard input.
    async fn exchange_as(&self, program: &Path) -> Result<Output, Trouble> {
        let ready = &self.environment.ready;
        let mut process = Command::new(program)
            .args(["exchange", "--workload-api", &ready.workload_api_socket, "--issuer", &ready.issuer])
            .args(["--subject-token", "-", "--resource", &self.crm, "--tool", DESK_TOOL])
            .args([
                "--arguments",
                &json!({ "payment_id": "pay_81", "amount_cents": 4200 }).to_string(),
                "--output",
                "json",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = process.stdin.take().ok_or_else(|| Trouble::new("the process takes nothing"))?;
        stdin.write_all(self.user.id_token.expose().as_bytes()).await?;
        drop(stdin);
        Ok(process.wait_with_output().await?)
    }
}

/// What a token says, unverified: the step that verifies one comes earlier.
fn claims(token: &str) -> Result<Value, Trouble> {
    let claims = token.split('.').nth(1).ok_or_else(|| Trouble::new("no token"))?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}

/// The exit code of what is denied.
const DENIED: i32 = 3;
