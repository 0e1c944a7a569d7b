//! A program that serves HTTP: the guard starts it, ends it, and starts it again when it has ended.

use super::{
    process::{self, Running, Starts},
    settings::Program,
};
use deputize_client::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// It runs as long as this value.
pub(super) struct Launched {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Launched {
    /// Starts it in the background.
    pub(super) fn start(program: Program, clock: Arc<dyn Clock>) -> Self {
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(run(program, clock, stop.subscribe()));
        Self { stop, task: Mutex::new(Some(task)) }
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

async fn run(program: Program, clock: Arc<dyn Clock>, mut stop: watch::Receiver<bool>) {
    let starts = Starts::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(starts.wait(clock.uptime())) => {}
            () = stopped(&mut stop) => return,
        }
        let started = clock.uptime();
        let (ends, mut ended) = oneshot::channel();
        let running = process::start(&program, move |_| {
            // Whoever no longer listens does not want to know.
            let _ = ends.send(());
        });
        if let Ok(Running { stdin, stdout, stop: end }) = running {
            tracing::info!("server started");
            tokio::spawn(process::log(stdout));
            tokio::select! {
                // Its end is told once; dropped untold, it is an end all the same.
                _ = &mut ended => {}
                () = stopped(&mut stop) => {
                    // The end of its stdin asks it to go; who does not is made to.
                    drop(stdin);
                    let _ = end.send(());
                    let _ = ended.await;
                    return;
                }
            }
        }
        starts.ended(true, started, clock.uptime());
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is nobody for whom it would run.
    let _ = stop.wait_for(|stop| *stop).await;
}
