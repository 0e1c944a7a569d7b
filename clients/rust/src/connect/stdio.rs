//! The local side as most clients start it: messages on stdin and stdout, one on each line (MCP, stdio transport).

use super::{
    Connector,
    conversation::Conversation,
    message::{self, INVALID_REQUEST, Message},
    outbox::{Outbox, Reply, Word},
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::mpsc,
};

impl Connector {
    /// Serves one client until it closes `input`, or no longer reads `output`.
    ///
    /// # Errors
    /// If `input` cannot be read.
    pub async fn serve_stdio(
        self: Arc<Self>,
        input: impl AsyncRead + Unpin + Send,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<()> {
        let (out, messages) = Outbox::new();
        let mut writer = tokio::spawn(write(output, messages));
        let conversation = Conversation::begin(&self);
        let read = tokio::select! {
            read = read(&conversation, input, &out) => read,
            // The client no longer listens.
            _ = &mut writer => Ok(()),
        };
        conversation.settle(SETTLE).await;
        conversation.end().await;
        drop(out);
        // What was said last is written; who does not read it in time does not want it.
        let _ = tokio::time::timeout(SETTLE, writer).await;
        read
    }
}

async fn read(
    conversation: &Arc<Conversation>,
    input: impl AsyncRead + Unpin,
    out: &Outbox,
) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut listens = false;
    loop {
        line.clear();
        let count = (&mut input).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).await?;
        if count == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && count as u64 > MAX_LINE_BYTES {
            skip_line(&mut input).await?;
            let text = format!("a message has at most {MAX_LINE_BYTES} bytes");
            let text = message::error(None, INVALID_REQUEST, &text, None);
            out.answer(Reply { text, status: TOO_LARGE }).await;
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        conversation.hear(Message::parse(&line), out).await;
        if !listens && conversation.is_open() {
            listens = true;
            conversation.keep(tokio::spawn(Arc::clone(conversation).listen(out.clone())).abort_handle());
        }
    }
}

/// Reads the rest of a line without keeping it.
async fn skip_line(input: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<()> {
    loop {
        let piece = input.fill_buf().await?;
        let (ends, length) = match piece.iter().position(|byte| *byte == b'\n') {
            Some(at) => (true, at + 1),
            None => (piece.is_empty(), piece.len()),
        };
        input.consume(length);
        if ends {
            return Ok(());
        }
    }
}

async fn write(mut output: impl AsyncWrite + Unpin, mut messages: mpsc::Receiver<Word>) -> io::Result<()> {
    while let Some(Word { mut text, .. }) = messages.recv().await {
        text.push('\n');
        output.write_all(text.as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

/// RFC 9110 §15.5.14; over stdin and stdout nobody hears of it.
const TOO_LARGE: u16 = 413;
/// As much as a guard takes in, with room for what stands around it.
const MAX_LINE_BYTES: u64 = 4 * 1024 * 1024;
/// How long requests under way may go on when the client leaves.
const SETTLE: Duration = Duration::from_secs(2);
