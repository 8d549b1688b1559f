//! What machine this is, and how busy it is besides.

use std::{fs, process::Command, thread, time::Instant};

use anyhow::Context as _;
use perihelion_types::Time;

use super::Contender;

/// Machine, date, versions and this program's flags, for whoever reads the figures later.
///
/// # Errors
/// When a contender's binary cannot be run.
pub fn describe(contenders: &[Contender]) -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpus.lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(':'))
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let flags = field("flags");
    let extensions: Vec<&str> = ["avx2", "avx512ifma", "sha_ni"]
        .into_iter()
        .filter(|name| flags.split(' ').any(|flag| flag == *name))
        .collect();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = Time::new(i64::try_from(since.as_secs())?, 0);
    let mut text = format!(
        "{now}; {} cores of {} ({}); load {}\n",
        thread::available_parallelism()?,
        field("model name"),
        extensions.join(", "),
        fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .trim()
    );
    for contender in contenders {
        let output = Command::new(&contender.program)
            .arg("version")
            .output()
            .with_context(|| format!("cannot run {}", contender.program.display()))?;
        let version = String::from_utf8_lossy(&output.stdout);
        text += &format!(
            "{}: version {}\n",
            contender.name,
            version.trim().replace('\n', ", ")
        );
    }
    let built = if cfg!(debug_assertions) {
        "WITHOUT"
    } else {
        "with"
    };
    text += &format!(
        "This program was built {built} optimisation. Flags: {}",
        std::env::args().skip(1).collect::<Vec<_>>().join(" ")
    );
    Ok(text)
}

/// CPU time of the whole machine, in ticks.
#[derive(Debug, Clone, Copy)]
pub struct MachineLoad {
    at: Instant,
    busy: f64,
    stolen: f64,
}

impl MachineLoad {
    /// Up to now.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        let tick = |index: usize| {
            ticks.get(index).copied().unwrap_or(0.0)
                / rustix::param::clock_ticks_per_second() as f64
        };
        Ok(Self {
            at: Instant::now(),
            // user, nice, system, irq, softirq
            busy: tick(0) + tick(1) + tick(2) + tick(5) + tick(6),
            stolen: tick(7),
        })
    }

    /// Cores that others used since `start`, besides `ours` seconds of CPU, and that the host took.
    #[must_use]
    pub fn others_since(self, start: Self, ours: f64) -> (f64, f64) {
        let wall = self.at.duration_since(start.at).as_secs_f64().max(0.001);
        let others = (self.busy - start.busy - ours).max(0.0) / wall;
        (others, (self.stolen - start.stolen).max(0.0) / wall)
    }
}
