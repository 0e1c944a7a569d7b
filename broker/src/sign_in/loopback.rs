//! Where the browser comes back to: a listener on loopback that waits for one answer (RFC 8252 §7.3).

use crate::http::listen::{Listening, serve_tcp};
use axum::{
    Router,
    extract::{RawQuery, State},
    response::Html,
    routing::get,
};
use std::{io, net::Ipv4Addr, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use url::Url;

/// A listener for the answer to one sign-in. Dropped, it listens no more.
pub(crate) struct Loopback {
    redirect_uri: Url,
    answers: mpsc::Receiver<Url>,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Place {
    base: Url,
    answers: mpsc::Sender<Url>,
}

impl Loopback {
    /// Listens on a free port.
    pub(crate) async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let base = Url::parse(&format!("http://{}", listener.local_addr()?)).map_err(io::Error::other)?;
        let redirect_uri = base.join(CALLBACK).map_err(io::Error::other)?;
        let (sender, answers) = mpsc::channel(1);
        let router = Router::new().route(CALLBACK, get(answer)).with_state(Place { base, answers: sender });
        let (stop, stopped) = watch::channel(false);
        let listening = Listening {
            tls: None,
            connections: MAX_CONNECTIONS,
            connections_of_one_source: MAX_CONNECTIONS,
            drain: DRAIN,
            stop: stopped,
        };
        let task = tokio::spawn(serve_tcp(listener, router, listening));
        Ok(Self { redirect_uri, answers, _stop: stop, task })
    }

    /// Where the provider sends the browser.
    pub(crate) fn redirect_uri(&self) -> &Url {
        &self.redirect_uri
    }

    /// The next URL that a browser comes with. It may be anyone's: only the sign-in can tell.
    pub(crate) async fn next(&mut self) -> Option<Url> {
        self.answers.recv().await
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(place): State<Place>, RawQuery(query): RawQuery) -> Html<&'static str> {
    let query = query.unwrap_or_default();
    let url = place.base.join(CALLBACK).ok().filter(|_| query.len() <= MAX_QUERY_BYTES);
    if let Some(mut url) = url {
        url.set_query(Some(&query));
        // One is looked at after the other; more than that nobody needs.
        let _ = place.answers.try_send(url);
    }
    Html(
        "<!doctype html><title>Deputize</title><p>You can close this window and go back to your program.</p>",
    )
}

const CALLBACK: &str = "/callback";
const MAX_CONNECTIONS: usize = 16;
const MAX_QUERY_BYTES: usize = 8 * 1024;
const DRAIN: Duration = Duration::from_secs(1);
