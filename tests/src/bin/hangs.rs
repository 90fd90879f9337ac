//! A program with a pipeline whose executor can be made to hang, for the tests of what
//! happens then: on SIGUSR1 all threads of the executor wait for ever, and when they do,
//! a file `hangs` appears in the current folder.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use carbontube::prelude::*;
use carbontube::transport::ExecutorProbe;
use carbontube::worker::{CommandMode, CommandOptions, CommandPhase};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

/// How many tasks hang: more than the executor has threads.
const TASKS: usize = 256;
/// For how many looks in a row, a hundredth of a second each, a dead executor is silent.
const SILENT_LOOKS: u32 = 30;

fn main() -> ExitCode {
    let mut signals = Signals::new([SIGUSR1]).expect("a signal can be listened to");
    thread::spawn(move || {
        signals.forever().next();
        hang();
    });
    let sleep = CommandPhase::new(CommandOptions {
        command: ["/bin/sh", "-c", "echo $$ >started; sleep 1000"]
            .map(str::to_owned)
            .to_vec(),
        mode: CommandMode::Once,
        ..CommandOptions::default()
    });
    carbontube::run([
        Pipeline::new("sleeps").any_phase("sleep", sleep.into_any()),
        Pipeline::new("blocks").phase("block", Block),
    ])
}

/// An async phase that does what none should: it blocks its thread, until there is a
/// file `go`.
struct Block;

impl Phase for Block {
    type Instructions = serde_json::Value;
    type Output = serde_json::Value;

    async fn execute(
        &self,
        _: &JobContext,
        _: Self::Instructions,
    ) -> Result<Self::Output, PhaseError> {
        while !std::path::Path::new("go").exists() {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(serde_json::json!({}))
    }
}

fn hang() {
    for _ in 0..TASKS {
        async_std::task::spawn(async {
            loop {
                thread::park();
            }
        });
    }
    let mut executor = ExecutorProbe::default();
    while executor.look() < SILENT_LOOKS {
        thread::sleep(Duration::from_millis(10));
    }
    std::fs::write("hangs", "").expect("a file can be written");
}
