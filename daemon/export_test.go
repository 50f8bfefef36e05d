package daemon

// ResidueNow is Residue without the time to settle.
var ResidueNow = residueNow
