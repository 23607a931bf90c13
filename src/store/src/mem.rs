//! Both stores in memory, with the faults that tests want: torn writes, lost syncs, a full disk.
