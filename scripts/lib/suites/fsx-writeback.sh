# As fsx, with the kernel's write-back cache.
. scripts/lib/suites/fsx.sh
options=writeback
