//! Failed jobs by what their errors have in common.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use carbontube_protocol::message::{ErrorReport, FailureGroup, FailureKind};
use carbontube_protocol::{JobType, Timestamp};

use super::job::{Job, JobNo};
use super::machine::Core;

/// The most groups; further kinds of errors share one group for each phase and kind.
const GROUPS_MAX: usize = 1000;
/// How much of an error's first line is looked at.
const SIGNATURE_CHARS_MAX: usize = 200;
/// The most groups in one answer, the largest ones.
const ANSWER_GROUPS_MAX: usize = 500;
/// How much of an error stands in an answer.
const MESSAGE_CHARS_MAX: usize = 500;
const OTHER: &str = "(other errors)";

/// A group's number: a hash, so that it is the same after a restart.
pub(super) type GroupNo = u64;

#[derive(Debug)]
struct Group {
    phase: u16,
    kind: FailureKind,
    signature: String,
    jobs: BTreeSet<(Timestamp, JobNo)>,
}

/// The failed jobs in their groups; kept by the table of jobs as jobs fail and leave.
#[derive(Debug, Default)]
pub(super) struct Failures {
    names: Vec<JobType>,
    groups: BTreeMap<GroupNo, Group>,
    by_job: BTreeMap<JobNo, (GroupNo, Timestamp)>,
}

impl Failures {
    pub(super) fn name_phases(&mut self, names: Vec<JobType>) {
        self.names = names;
    }

    pub(super) fn add(&mut self, no: JobNo, job: &Job) {
        let failure = job.rare.as_ref().and_then(|rare| rare.failure.as_ref());
        let (kind, message) = failure.map_or((FailureKind::Error, Cow::Borrowed("")), |failure| {
            (failure.kind, summary(&failure.error))
        });
        let mut signature = signature(&message);
        let mut group = self.number(job.phase, kind, &signature);
        if !self.groups.contains_key(&group) && self.groups.len() >= GROUPS_MAX {
            signature = OTHER.to_owned();
            group = self.number(job.phase, kind, &signature);
        }
        let found = self.groups.entry(group).or_insert_with(|| Group {
            phase: job.phase,
            kind,
            signature,
            jobs: BTreeSet::new(),
        });
        found.jobs.insert((job.changed_at, no));
        self.by_job.insert(no, (group, job.changed_at));
    }

    pub(super) fn remove(&mut self, no: JobNo) {
        let Some((group, at)) = self.by_job.remove(&no) else {
            return;
        };
        if let Some(found) = self.groups.get_mut(&group) {
            found.jobs.remove(&(at, no));
            if found.jobs.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    fn number(&self, phase: u16, kind: FailureKind, signature: &str) -> GroupNo {
        let name = self.names.get(usize::from(phase));
        let name = name.map_or("", JobType::as_str);
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in format!("{name}\n{kind}\n{signature}").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash
    }

    fn group(&self, group: &str) -> Option<&Group> {
        let no = GroupNo::from_str_radix(group, 16).ok()?;
        self.groups.get(&no)
    }

    /// The job of a group that failed last.
    pub(super) fn last(&self, group: &str) -> Option<(Timestamp, JobNo)> {
        self.group(group)?.jobs.last().copied()
    }

    /// The first job of a group from a place on.
    pub(super) fn job_from(
        &self,
        group: &str,
        from: (Timestamp, JobNo),
    ) -> Option<(Timestamp, JobNo)> {
        self.group(group)?.jobs.range(from..).next().copied()
    }

    /// The jobs of a group, those that failed first in front.
    pub(super) fn jobs(
        &self,
        group: &str,
    ) -> impl DoubleEndedIterator<Item = (Timestamp, JobNo)> + '_ {
        let found = self.group(group).into_iter();
        found.flat_map(|group| group.jobs.iter().copied())
    }
}

impl Core {
    pub(super) fn failure_groups(&self) -> Vec<FailureGroup> {
        let mut views: Vec<FailureGroup> = Vec::new();
        for (no, group) in &self.jobs.failures.groups {
            let (Some(first), Some(last)) = (group.jobs.first(), group.jobs.last()) else {
                continue;
            };
            let Some(sample) = self.jobs.job(last.1) else {
                continue;
            };
            let failure = sample.rare.as_ref().and_then(|rare| rare.failure.as_ref());
            views.push(FailureGroup {
                group: format!("{no:016x}"),
                job_type: self.job_type(group.phase).clone(),
                kind: group.kind,
                signature: group.signature.clone(),
                count: group.jobs.len() as u64,
                first_at: first.0,
                last_at: last.0,
                sample: sample.id.clone(),
                message: failure.map_or(String::new(), |found| {
                    let message = summary(&found.error);
                    message.chars().take(MESSAGE_CHARS_MAX).collect()
                }),
            });
        }
        views.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.group.cmp(&b.group)));
        views.truncate(ANSWER_GROUPS_MAX);
        views
    }
}

/// An error in a line: a command's exit status says little without its last words.
fn summary(error: &ErrorReport) -> Cow<'_, str> {
    let message = error.message.as_str();
    let is_bare = ["exited with status ", "killed by signal "]
        .iter()
        .any(|begin| message.starts_with(begin));
    let last = error
        .detail
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty());
    match last {
        Some(last) if is_bare => Cow::Owned(format!("{message}: {last}")),
        _ => Cow::Borrowed(message),
    }
}

/// What an error has in common with others of its kind: the first line, with paths,
/// numbers and ids replaced.
pub(super) fn signature(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty());
    let line: String = line
        .unwrap_or("")
        .trim()
        .chars()
        .take(SIGNATURE_CHARS_MAX)
        .collect();
    let mut out = String::with_capacity(line.len());
    let mut word = String::new();
    for c in line.chars() {
        if c.is_whitespace() || "\"'`,;()[]{}<>=|".contains(c) {
            put_word(&mut out, &word);
            word.clear();
            let c = if c.is_whitespace() || c.is_control() {
                ' '
            } else {
                c
            };
            if !(c == ' ' && out.ends_with(' ')) {
                out.push(c);
            }
        } else {
            word.push(c);
        }
    }
    put_word(&mut out, &word);
    out
}

fn put_word(out: &mut String, word: &str) {
    let is_path = word.len() > 1 && (word.contains('/') || word.contains('\\'));
    if is_path && !word.chars().all(|c| c == '/') {
        out.push('#');
        // What stands behind a path, as a colon does, is part of the sentence.
        if word.ends_with(':') {
            out.push(':');
        }
        return;
    }
    let mut replaced = String::with_capacity(word.len());
    let mut part = String::new();
    for c in word.chars() {
        if c.is_ascii_alphanumeric() {
            part.push(c);
        } else {
            put_part(&mut replaced, &part);
            part.clear();
            replaced.push(c);
        }
    }
    put_part(&mut replaced, &part);
    // An id of several parts is one thing.
    for joint in ["#-#", "#.#", "#:#", "#_#"] {
        while replaced.contains(joint) {
            replaced = replaced.replace(joint, "#");
        }
    }
    out.push_str(&replaced);
}

fn put_part(out: &mut String, part: &str) {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = part.len() >= 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits == 0 {
        out.push_str(part);
    } else if is_hex || digits == part.len() {
        out.push('#');
    } else {
        let mut in_digits = false;
        for c in part.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !in_digits {
                out.push('#');
            }
            in_digits = c.is_ascii_digit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::signature;

    fn check(message: &str, expected: &str) {
        assert_eq!(signature(message), expected, "of {message:?}");
    }

    #[test]
    fn signatures_leave_out_what_differs_from_job_to_job() {
        check("exited with status 1", "exited with status #");
        check("exited with status 137", "exited with status #");
        check(
            "cannot open /tmp/a/b1.mp4: no such file",
            "cannot open #: no such file",
        );
        check(
            "job 0190f3c2-7a5e-7bb0-8000-0123456789ab is broken",
            "job # is broken",
        );
        check(
            "at 12:30:01.5 no answer from 10.0.0.7:5050",
            "at # no answer from #",
        );
        check(
            "frame42 of video7.mp4 is bad",
            "frame# of video#.mp# is bad",
        );
        check("deadbeef0 and cafe", "# and cafe");
        check("\n\n  second line first\nthird", "second line first");
        check("", "");
        check("https://example.org/x?id=1 gave 503", "#=# gave #");
    }

    #[test]
    fn signatures_are_bounded_and_harmless() {
        let long = "x".repeat(100_000);
        assert_eq!(signature(&long).len(), 200);
        check("a\u{1b}[31mred", "a\u{1b}[#mred");
        check("tab\t\tand   spaces", "tab and spaces");
        check("日本 12 本", "日本 # 本");
    }
}
