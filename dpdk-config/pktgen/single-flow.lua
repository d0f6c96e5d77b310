-- SPDX-License-Identifier: Apache-2.0
-- One UDP flow, both directions: pktgen ... -f single-flow.lua. Settings: common.lua. Guide: docs/pktgen.md.
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")

common.main(function()
    common.prepare()
    common.establish(1)
    common.run()
end)
