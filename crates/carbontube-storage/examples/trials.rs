//! Trials of the sled store that need root, each ending in one line and an exit code.
//!
//! `cargo run --release -p carbontube-storage --features testing --example trials -- VERB [TIMES]`
//!
//! - `power-cut`: ext4 on a loop file, copied right after an acknowledgement,
//!   mounted, opened and verified. A third as many rounds are made with sled
//!   alone, without our sync; they show whether the trial can tell.
//! - `kill`: a writer of commits that put and remove megabytes is killed in the middle of one.
//! - `full-disk`: a small tmpfs, filled under the journal and freed again.

use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use carbontube_storage::trials::{
    check_acknowledged, fill_disk, page, power_cut, write_acknowledged,
};
use carbontube_storage::{Commit, Log, OpenMode, OpenOptions, PageSeq, open};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", path] => {
            let mut store = open(&format!("sled:{path}"), &OpenOptions::new("trial"))?;
            let (input, output) = (io::stdin().lock(), io::stdout().lock());
            Ok(write_acknowledged(store.as_mut(), input, output)?)
        }
        ["write-sled-alone", path] => write_sled_alone(Path::new(path)),
        ["power-cut"] => cut_power(18),
        ["power-cut", rounds] => cut_power(rounds.parse().context("how many rounds?")?),
        ["write-large", path] => write_large(Path::new(path)),
        ["kill"] => kill(30),
        ["kill", rounds] => kill(rounds.parse().context("how many rounds?")?),
        ["full-disk"] => full_disk(4),
        ["full-disk", times] => full_disk(times.parse().context("how many times?")?),
        _ => bail!("expected power-cut [ROUNDS], kill [ROUNDS] or full-disk [TIMES]"),
    }
}

fn cut_power(rounds: u64) -> Result<()> {
    let own = std::env::current_exe()?;
    let mut random = fastrand::Rng::with_seed(18);
    let mut trial = |verb: &str, check: &mut dyn FnMut(&Path, PageSeq) -> Result<(), String>| {
        let folder = tempfile::tempdir()?;
        let commits = random.u64(1..400);
        let mut writer = |path: &Path| {
            let mut command = Command::new(&own);
            command.arg(verb).arg(path);
            command
        };
        let cut = power_cut(folder.path(), commits, &mut writer, check)?;
        let outcome = cut.failure.as_deref().unwrap_or("good");
        println!(
            "{verb}, {commits} commits, pages before {}: {outcome}",
            cut.acknowledged
        );
        anyhow::Ok(cut.failure.is_none())
    };
    let mut good = 0;
    for _ in 0..rounds {
        good += u64::from(trial("write", &mut check_store)?);
    }
    let control_rounds = rounds.div_ceil(3);
    let mut control_lost = 0;
    for _ in 0..control_rounds {
        control_lost += u64::from(!trial("write-sled-alone", &mut check_sled_alone)?);
    }
    println!(
        "power-cut: {good} of {rounds} good; sled alone lost something in {control_lost} of {control_rounds}"
    );
    ensure!(good == rounds, "acknowledged commits were lost");
    Ok(())
}

fn check_store(path: &Path, acknowledged: PageSeq) -> Result<(), String> {
    let options = OpenOptions {
        mode: OpenMode::Existing,
        ..OpenOptions::new("trial")
    };
    let mut store = open(&format!("sled:{}", path.display()), &options)
        .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    check_acknowledged(store.as_mut(), acknowledged)
}

/// The same kind of writes as one would make with sled and its `flush`.
fn write_sled_alone(path: &Path) -> Result<()> {
    let db = sled::open(path)?;
    for (seq, line) in (1_u64..).zip(io::stdin().lines()) {
        line?;
        db.insert(seq.to_be_bytes(), page(Log::Journal, PageSeq(seq)))?;
        db.flush()?;
        println!("{}", seq + 1);
    }
    Ok(())
}

fn check_sled_alone(path: &Path, acknowledged: PageSeq) -> Result<(), String> {
    // It panics on what it finds as often as it says what is wrong.
    let path = path.to_owned();
    let checked = std::panic::catch_unwind(move || {
        let db = sled::open(path).map_err(|error| error.to_string())?;
        let there = db.iter().filter(Result::is_ok).count() as u64;
        match there + 1 >= acknowledged.0 {
            true => Ok(()),
            false => Err(format!("{there} of {} pages are there", acknowledged.0 - 1)),
        }
    });
    checked.unwrap_or_else(|_| Err("sled panics at opening".to_owned()))
}

fn full_disk(times: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let filled = fill_disk(folder.path(), times)?;
    println!(
        "full-disk: full {} times, all pages before {} there, {} commits that had failed were stored",
        filled.times_full, filled.confirmed, filled.applied
    );
    Ok(())
}

/// Fills a journal with 24 MiB and empties it, in commits of 8 MiB, until it is killed.
fn write_large(path: &Path) -> Result<()> {
    let mut store = open(
        &format!("sled:{}", path.display()),
        &OpenOptions::new("trial"),
    )?;
    loop {
        let bounds = store.bounds(Log::Journal);
        let mut commit = Commit::new();
        if bounds.pages() < 140 * 3 {
            for seq in bounds.next.0..bounds.next.0 + 140 {
                commit.put(Log::Journal, PageSeq(seq), vec![seq as u8; 60_000]);
            }
        } else {
            for first in [140, 280, 420] {
                let first = PageSeq(bounds.first.0 + first);
                let mut removal = Commit::new();
                removal.put(Log::Journal, store.bounds(Log::Journal).next, vec![1; 100]);
                removal.truncate_before(Log::Journal, first);
                store.commit(&removal)?;
            }
            continue;
        }
        store.commit(&commit)?;
    }
}

fn kill(rounds: u64) -> Result<()> {
    let own = std::env::current_exe()?;
    let mut random = fastrand::Rng::new();
    let mut bad = 0;
    for round in 0..rounds {
        let folder = tempfile::tempdir_in(".")?;
        let path = folder.path().join("journal");
        let mut writer = Command::new(&own).arg("write-large").arg(&path).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(random.u64(300..2500)));
        writer.kill()?;
        writer.wait()?;
        let options = OpenOptions::new("trial");
        match open(&format!("sled:{}", path.display()), &options) {
            Ok(store) => println!("round {round}: good, {:?}", store.bounds(Log::Journal)),
            Err(error) => {
                bad += 1;
                println!(
                    "round {round}: {error}: {:?}",
                    std::error::Error::source(&error).map(|e| e.to_string())
                );
            }
        }
    }
    ensure!(
        bad == 0,
        "{bad} of {rounds} journals were refused after a kill"
    );
    Ok(())
}
