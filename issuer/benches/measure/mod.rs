//! What benches have in common: CPU time, medians, and where results go.

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// CPU time of the process and wall time for all requests of a run, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

/// A run that has begun.
pub(crate) struct Begun {
    cpu: f64,
    start: Instant,
}

impl Cost {
    /// CPU time of each request.
    pub(crate) fn microseconds(self, requests: usize) -> f64 {
        self.cpu * 1e6 / requests as f64
    }
}

impl Begun {
    pub(crate) fn now() -> Self {
        Self { cpu: cpu_seconds(), start: Instant::now() }
    }

    pub(crate) fn cost(&self) -> Cost {
        Cost { cpu: cpu_seconds() - self.cpu, wall: self.start.elapsed().as_secs_f64() }
    }
}

/// What this costs.
pub(crate) fn counted(work: impl FnOnce()) -> Cost {
    let begun = Begun::now();
    work();
    begun.cost()
}

pub(crate) fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Leaves the results of a bench in `target/bench`.
pub(crate) fn save(bench: &str, report: &Value) {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(bench).with_extension("json"), format!("{report:#}\n")).unwrap();
}

/// CPU time that all threads of this process have used.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux keeps the CPU time of each thread there");
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}
