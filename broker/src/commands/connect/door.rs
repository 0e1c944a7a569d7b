//! The local side over HTTP: on loopback, for whoever knows the secret of this start.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_client::connect::Connector;
use deputize_issuer::clock::fill_random;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};
use zeroize::Zeroizing;

use crate::{
    commands::{exit::CommandError, output::announce, serve::StopSignal},
    http::listen::{Listening, serve_tcp},
};

/// Serves until it is told to stop.
pub(super) async fn serve(
    connector: &Arc<Connector>,
    address: SocketAddr,
    secret_file: Option<&Path>,
) -> Result<(), CommandError> {
    if !address.ip().is_loopback() {
        return Err(CommandError::usage(
            format!("--listen: {address} is not of this machine alone"),
            "give 127.0.0.1:PORT; what serves others is a guard",
        ));
    }
    let cannot = |error: &dyn std::fmt::Display| {
        CommandError::failure(format!("--listen {address}: {error}"), "give a free port, or 0 for any")
    };
    let mut stop = StopSignal::listen().map_err(|error| cannot(&error))?;
    let listener = TcpListener::bind(address).await.map_err(|error| cannot(&error))?;
    let address = listener.local_addr().map_err(|error| cannot(&error))?;
    let secret = new_secret().map_err(|error| cannot(&error))?;
    let router = connector.router(address, &secret);
    let (stopping, stopped) = watch::channel(false);
    let listening = Listening {
        tls: None,
        connections: MAX_CONNECTIONS,
        connections_of_one_source: MAX_CONNECTIONS,
        drain: DRAIN,
        stop: stopped,
    };
    let served = tokio::spawn(serve_tcp(listener, router, listening));
    tell(&secret, secret_file)?;
    announce(&format!("serving http://{address}/mcp"));
    stop.wait().await;
    // The listener is there until it hears this; that it ended by itself changes nothing.
    let _ = stopping.send(true);
    let _ = served.await;
    if let Some(file) = secret_file {
        // It opens nothing any more. That it is gone already changes nothing.
        let _ = fs::remove_file(file);
    }
    Ok(())
}

fn tell(secret: &str, file: Option<&Path>) -> Result<(), CommandError> {
    let Some(file) = file else {
        announce(&format!("clients send: Authorization: Bearer {secret}"));
        return Ok(());
    };
    write(file, secret).map_err(|error| {
        CommandError::failure(
            format!("{}: {error}", file.display()),
            "give a --secret-file that can be written",
        )
    })
}

/// One of an earlier start is replaced, never written through: who could read that one must not read this one.
fn write(file: &Path, secret: &str) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(secret.as_bytes())
}

fn new_secret() -> io::Result<Zeroizing<String>> {
    let mut random = Zeroizing::new([0_u8; 32]);
    fill_random(random.as_mut()).map_err(io::Error::other)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*random)))
}

const MAX_CONNECTIONS: usize = 128;
const DRAIN: Duration = Duration::from_secs(2);
