//! A program that serves HTTP: the guard starts it, ends it, and starts it again when it has ended.

use super::{
    process::{self, Running, Starts},
    settings::LaunchedProgram,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use deputize_client::Clock;
use rustls::crypto::aws_lc_rs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use zeroize::Zeroizing;

/// It runs as long as this value.
pub(super) struct Launched {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    told: Arc<Told>,
}

/// The secret that the program was told which runs now.
#[derive(Default)]
pub(super) struct Told(Mutex<Option<Zeroizing<String>>>);

impl Launched {
    /// Starts it in the background.
    pub(super) fn start(program: LaunchedProgram, clock: Arc<dyn Clock>) -> Self {
        let (stop, told) = (watch::Sender::new(false), Arc::<Told>::default());
        let task = tokio::spawn(run(program, Arc::clone(&told), (clock, stop.subscribe())));
        Self { stop, task: Mutex::new(Some(task)), told }
    }

    /// What the program knows the guard by, whichever runs.
    pub(super) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    /// Ends it, and waits until it has ended.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A panic in it is in the log already.
            drop(task.await);
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Told {
    /// What proves the guard to the program that runs now. `None` while none runs: then nothing is sent to where it would
    /// be, for anybody may serve there.
    pub(super) fn secret(&self) -> Option<Zeroizing<String>> {
        self.now().clone()
    }

    fn now(&self) -> MutexGuard<'_, Option<Zeroizing<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(
    launched: LaunchedProgram,
    told: Arc<Told>,
    (clock, mut stop): (Arc<dyn Clock>, watch::Receiver<bool>),
) {
    let starts = Starts::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(starts.wait(clock.uptime())) => {}
            () = stopped(&mut stop) => return,
        }
        let started = clock.uptime();
        let (ends, mut ended) = oneshot::channel();
        if let Some((running, secret)) = start(&launched, ends) {
            tracing::info!("server started");
            *told.now() = Some(secret);
            let Running { stdin, stdout, stop: end } = running;
            tokio::spawn(process::log(stdout));
            let is_stopped = tokio::select! {
                // Its end is told once; dropped untold, it is an end all the same.
                _ = &mut ended => false,
                () = stopped(&mut stop) => true,
            };
            *told.now() = None;
            if is_stopped {
                // The end of its stdin asks it to go; who does not is made to.
                drop(stdin);
                let _ = end.send(());
                let _ = ended.await;
                return;
            }
        }
        starts.ended(true, started, clock.uptime());
    }
}

/// Starts it with a secret that no other start had.
fn start(launched: &LaunchedProgram, ends: oneshot::Sender<()>) -> Option<(Running, Zeroizing<String>)> {
    let mut random = Zeroizing::new([0_u8; SECRET_BYTES]);
    if aws_lc_rs::default_provider().secure_random.fill(random.as_mut()).is_err() {
        tracing::error!("no randomness: server not started");
        return None;
    }
    let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_ref()));
    let mut program = launched.program.clone();
    program.environment.push((launched.secret_variable.clone(), secret.clone()));
    let running = process::start(&program, move |_| {
        // Whoever no longer listens does not want to know.
        let _ = ends.send(());
    });
    running.ok().map(|running| (running, secret))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is nobody for whom it would run.
    let _ = stop.wait_for(|stop| *stop).await;
}

const SECRET_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{
        failure::Failure,
        server::{Server, Trace},
        settings::{HttpUpstream, Program},
        streamable::HttpServer,
        tests::{HandClock, until},
    };
    use std::{
        fs,
        io::{ErrorKind, Read as _},
        net::TcpListener,
        path::Path,
    };

    /// A shell that notes what it is told, and ends when a file `end` is there.
    fn noting(folder: &Path) -> LaunchedProgram {
        let script = folder.join("script");
        let text = "echo \"$TOLD\" >> told; while [ ! -e end ]; do /bin/sleep 0.02; done; /bin/rm end";
        fs::write(&script, text).unwrap();
        let mut program = Program::new("/bin/sh".into(), vec![script.to_str().unwrap().to_owned()]);
        program.folder = Some(folder.to_owned());
        LaunchedProgram { program, secret_variable: "TOLD".to_owned(), secret_header: "guard".to_owned() }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("deputize-launched-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn each_start_has_a_secret_of_its_own_and_there_is_none_while_nothing_runs() {
        let folder = folder("secrets");
        let launched = Launched::start(noting(&folder), Arc::new(HandClock::default()));
        let told = || fs::read_to_string(folder.join("told")).unwrap_or_default();
        until(|| told().lines().count() == 1 && launched.told.secret().is_some()).await;
        let first = launched.told.secret().unwrap();
        assert!(first.len() >= 32 && told().trim_end() == first.as_str());

        fs::write(folder.join("end"), "").unwrap();
        until(|| told().lines().count() == 2).await;
        let second = told().lines().last().unwrap().to_owned();
        until(|| launched.told.secret().is_some_and(|secret| secret.as_str() == second)).await;
        assert_ne!(second, first.as_str());
        launched.stop().await;
        assert!(launched.told.secret().is_none());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn the_secret_goes_to_the_program_that_runs_and_to_nobody_in_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let folder = folder("squatter");
        let trace = Trace { traceparent: None, request_id: "r".to_owned(), version: None };
        let before = |launched: LaunchedProgram| {
            let address = listener.local_addr().unwrap();
            let mut upstream = HttpUpstream::new(format!("http://{address}/mcp").parse().unwrap());
            upstream.program = Some(launched);
            HttpServer::new(upstream, Arc::new(HandClock::default())).unwrap()
        };

        let mut absent = noting(&folder);
        absent.program.path = folder.join("no-such-program");
        let server = before(absent);
        let channel = server.open().await.unwrap();
        assert_eq!(channel.listen(None, &trace).await.err(), Some(Failure::Unreachable));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        server.stop().await;

        let server = before(noting(&folder));
        let told = || fs::read_to_string(folder.join("told")).unwrap_or_default();
        until(|| !told().is_empty()).await;
        let channel = server.open().await.unwrap();
        let listening = tokio::spawn(async move { channel.listen(None, &trace).await.err() });
        let mut heard = None;
        until(|| {
            heard = listener.accept().ok();
            heard.is_some()
        })
        .await;
        let (mut stream, _) = heard.unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut request = Vec::new();
        until(|| {
            // Until the other end waits for an answer there is more to come, or nothing yet.
            drop(stream.read_to_end(&mut request));
            request.ends_with(b"\r\n\r\n")
        })
        .await;
        let request = String::from_utf8(request).unwrap();
        assert!(request.contains(&format!("guard: {}\r\n", told().trim_end())), "{request}");
        drop(stream);
        assert_eq!(listening.await.unwrap(), Some(Failure::Unreachable));
        server.stop().await;
        fs::remove_dir_all(&folder).unwrap();
    }
}
