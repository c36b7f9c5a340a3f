-- streamfx.lua in a stand-in for an OBS that has the Browser source, which those that tests can have do not:
-- `luajit obs_browser.lua streamfx.lua SILENT_PORT PORT`. Nobody listens at PORT until a line comes on stdin.

local ffi = require("ffi")
ffi.cdef("struct fake_time { long s, ns; }; int clock_gettime(int, struct fake_time *);")

local FASTER = 4 -- its clock
local sources, buttons, refreshed, said = {}, {}, {}, ""
local scene = { name = "Main" }
local tick

local function read(kind)
  return function(data, key)
    if data[key] == nil then return kind end
    return data[key]
  end
end

local function write(data, key, value)
  data[key] = value
end

obslua = setmetatable({
  os_gettime_ns = function()
    local time = ffi.new("struct fake_time")
    ffi.C.clock_gettime(1, time)
    return FASTER * (tonumber(time.s) * 1e9 + tonumber(time.ns))
  end,
  obs_data_create = function() return {} end,
  obs_data_get_string = read(""),
  obs_data_get_bool = read(false),
  obs_data_set_string = write,
  obs_data_set_bool = write,
  obs_data_set_int = write,
  obs_data_set_default_string = write,
  obs_source_get_display_name = function() return "Browser" end,
  obs_video_info = function() return { base_width = 1920, base_height = 1080 } end,
  vec2 = function() return {} end,
  obs_get_source_by_name = function(name) return sources[name] end,
  obs_source_create = function(kind, name, settings)
    sources[name] = { kind = kind, name = name, settings = settings }
    return sources[name]
  end,
  obs_source_update = function(source, settings)
    for key, value in pairs(settings) do source.settings[key] = value end
  end,
  obs_source_get_name = function(source) return source.name end,
  obs_source_get_unversioned_id = function(source) return source.kind end,
  obs_source_get_settings = function(source) return source.settings end,
  obs_enum_sources = function() return { sources.streamfx } end,
  obs_frontend_get_current_scene = function() return scene end,
  obs_scene_from_source = function() return scene end,
  obs_scene_add = function() return {} end,
  obs_source_properties = function() return {} end,
  obs_properties_get = function(_, name) return name end,
  obs_property_button_clicked = function(name, source) refreshed[source.name] = name end,
  obs_properties_add_button = function(_, name, _, pressed) buttons[name] = pressed end,
  timer_add = function(callback) tick = callback end,
}, { __index = function() return function() end end })

function print(text) said = text end

dofile(arg[1])

local function wait_for(condition)
  local stop = os.time() + 10
  while not condition() do
    if os.time() > stop then error("it last said: " .. said, 2) end
    tick()
    ffi.C.poll(nil, 0, 5)
  end
end

local settings = { token = "t0ken" }
script_defaults(settings)
settings.server = "http://127.0.0.1:" .. arg[2]
script_load(settings)
local properties = script_properties()
buttons.connect(properties) -- it comes back, though the server says nothing
assert(settings.state:match("^Asking"), settings.state)
wait_for(function() return said:match("^Nobody answers") end)

settings.server = "http://127.0.0.1:" .. arg[3]
buttons.add(properties)
local made = sources.streamfx
assert(made.kind == "browser_source")
assert(made.settings.url == settings.server .. "/view/live#token=t0ken", made.settings.url)
assert(made.settings.width == 1920 and made.settings.height == 1080)

io.write("away\n")
io.flush()
io.read()
wait_for(function() return refreshed.streamfx == "refreshnocache" end)
buttons.add(properties)
assert(sources.streamfx == made and made.settings.width == 640, "it is brought up to date with the session's size")
script_unload()
io.write("fine\n")
