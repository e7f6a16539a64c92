//! How a batch is shared out among threads: groups of texts for one thread each, and what all work on together.

/// A group has at most this many tokens, unless one text has more: its activations and a panel of weights then fit the second-level cache.
pub(in crate::exec) const GROUP_TOKENS: usize = 256;
/// A group has at least this many tokens, or the weights would be read too often for what they do.
const GROUP_TOKENS_LEAST: usize = 64;
/// A group is this part of what is left for one thread, so that the last ones to finish do not leave others idle.
const GROUPS_PER_THREAD: usize = 2;
/// Of a text that all threads work on, what only one of them can do at a time: norms, rotations, waiting for each other. An estimate, which decides only
/// about what is left over at a batch's end.
const ALONE: f64 = 0.05;

/// The texts of a batch, by number, each once.
#[derive(Debug)]
pub(super) struct Plan {
    /// On these all threads work together, operation by operation, before the groups.
    pub(super) together: Vec<usize>,
    /// Each for one thread, in the order in which threads take them.
    pub(super) groups: Vec<Vec<usize>>,
}

impl Plan {
    pub(super) fn of(lens: &[usize], threads: usize) -> Self {
        // With fewer texts than threads, or hardly more, some threads would have nothing to do.
        if lens.len() < 2 * threads || lens.iter().sum::<usize>() < GROUP_TOKENS_LEAST * threads {
            return Self { together: (0..lens.len()).collect(), groups: Vec::new() };
        }
        let mut groups = groups(lens, threads);
        let left = uneven(&groups, lens, threads);
        let together = groups.split_off(groups.len() - left).concat();
        Self { together, groups }
    }
}

fn groups(lens: &[usize], threads: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lens.len()).collect();
    // The longest first: what is left at the end is short.
    order.sort_by_key(|text| std::cmp::Reverse(lens[*text]));
    let (mut groups, mut left): (Vec<Vec<usize>>, usize) = (Vec::new(), lens.iter().sum());
    // The group being filled: its tokens, and how many it shall have.
    let (mut tokens, mut target) = (0, 0);
    for text in order {
        match groups.last_mut() {
            Some(group) if tokens + lens[text] <= target => group.push(text),
            _ => {
                // A part of what is left: large groups first, and at the end small ones, so that no thread waits long for the last.
                target = (left / (GROUPS_PER_THREAD * threads)).clamp(GROUP_TOKENS_LEAST, GROUP_TOKENS);
                tokens = 0;
                groups.push(vec![text]);
            }
        }
        tokens += lens[text];
        left -= lens[text];
    }
    groups
}

/// How many of the last groups are done sooner by all threads together, because they would leave most of them idle: of texts of one length, those beyond
/// the same number for every thread.
fn uneven(groups: &[Vec<usize>], lens: &[usize], threads: usize) -> usize {
    let tokens = |group: &Vec<usize>| group.iter().map(|text| lens[*text]).sum::<usize>();
    let (mut busy, mut ends) = (vec![0; threads], vec![0]);
    for group in groups {
        // Whoever is free first takes the next.
        if let Some(first) = busy.iter_mut().min() {
            *first += tokens(group);
        }
        ends.push(busy.iter().copied().max().unwrap_or(0));
    }
    let share = ALONE + (1. - ALONE) / threads as f64;
    let (mut last, mut best) = (0, (ends[groups.len()] as f64, 0));
    for count in 1..threads.min(groups.len()) {
        last += tokens(&groups[groups.len() - count]);
        let end = ends[groups.len() - count] as f64 + last as f64 * share;
        if end < best.0 {
            best = (end, count);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_every_text_once_and_its_groups_stay_small() {
        for (lens, threads) in [
            (vec![], 2),
            (vec![14], 2),
            (vec![500, 10], 2),
            ((1..200).collect::<Vec<_>>(), 2),
            (vec![128; 32], 1),
            (vec![600; 9], 4),
            (vec![124; 77], 8),
        ] {
            let Plan { together, groups } = Plan::of(&lens, threads);
            let mut all: Vec<usize> = groups.iter().flatten().chain(&together).copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..lens.len()).collect::<Vec<_>>());
            assert!(groups.iter().all(|group| group.len() == 1 || group.iter().map(|text| lens[*text]).sum::<usize>() <= GROUP_TOKENS));
        }
    }

    #[test]
    fn texts_that_would_keep_one_thread_busy_alone_are_done_together() {
        for (texts, threads, want) in [(33, 2, 1), (32, 2, 0), (34, 4, 2), (40, 1, 0), (2 * 8 + 1, 8, 1)] {
            let Plan { together, groups } = Plan::of(&vec![124; texts], threads);
            assert_eq!((together.len(), groups.concat().len()), (want, texts - want), "{texts} texts on {threads} threads");
        }
        // The last ones are too short to matter.
        let lens: Vec<usize> = (1..=100).rev().collect();
        assert!(Plan::of(&lens, 2).together.iter().map(|text| lens[*text]).sum::<usize>() <= GROUP_TOKENS_LEAST);
    }
}
