-- streamfx in OBS: shows a session of a streamfx server as a source, and its filter's settings in this dialogue.
--
-- Tools > Scripts > + > this file. OBS 27 or later; nothing else is to be installed. docs/obs.md has the rest.
--
-- The server is asked over plain HTTP by non-blocking sockets of LuaJIT's FFI: OBS calls a script's timers from the
-- thread that draws its picture, so nothing here ever waits there. A button may wait for an answer, for 0.2 s at most.

local obs = obslua
local has_ffi, ffi = pcall(require, "ffi")

local POLL_SECONDS = 2 -- how often the server is asked for the session
local REFUSED_SECONDS = 30 -- after a wrong token: the server counts those
local CALL_SECONDS = 5 -- an answer may take so long, and
local LONG_CALL_SECONDS = 40 -- where the server has filters to import
local BUTTON_SECONDS = 0.2 -- a button waits for an answer so long
local TYPING_SECONDS = 0.6 -- a text is sent when nobody has typed for so long
local LARGEST_ANSWER = 4 * 1024 * 1024

local function now()
  return obs.os_gettime_ns() / 1e9
end

-- JSON -----------------------------------------------------------------------------------------------------------

local null = setmetatable({}, { __tostring = function() return "null" end })
local key_order = setmetatable({}, { __mode = "k" }) -- object -> its keys, as they stood in the text
local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function utf8_of(code)
  if code < 0x80 then return string.char(code) end
  local tail = {}
  local first = 0x40
  while code >= first do -- what does not fit beside the mark of the first byte goes into a byte of its own
    table.insert(tail, 1, string.char(0x80 + code % 0x40))
    code, first = math.floor(code / 0x40), #tail == 1 and 0x20 or first / 2
  end
  return string.char(0x100 - 2 * first + code) .. table.concat(tail)
end

local function read_string(text, at) -- `at`: behind the opening quote
  local parts = {}
  while true do
    local stop = text:find('["\\]', at) or error("a string does not end")
    table.insert(parts, text:sub(at, stop - 1))
    if text:byte(stop) == 34 then return table.concat(parts), stop + 1 end
    local kind = text:sub(stop + 1, stop + 1)
    at = stop + 2
    if kind == "u" then
      local code = tonumber(text:sub(at, at + 3), 16) or error("a bad \\u")
      at = at + 4
      local low = code >= 0xD800 and code < 0xDC00 and tonumber(text:match("^\\u(%x%x%x%x)", at) or "", 16)
      if low then
        code, at = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00), at + 6
      end
      table.insert(parts, utf8_of(code))
    else
      table.insert(parts, ESCAPES[kind] or kind)
    end
  end
end

local read_value

local function read_list(text, at)
  local list = {}
  at = text:find("%S", at)
  if text:sub(at, at) == "]" then return list, at + 1 end
  while true do
    local value
    value, at = read_value(text, at)
    table.insert(list, value)
    local mark, after = text:match("^%s*([,%]])()", at)
    if not mark then error("a list does not end") end
    at = after
    if mark == "]" then return list, at end
  end
end

local function read_object(text, at)
  local object, keys = {}, {}
  key_order[object] = keys
  local after = text:match("^%s*}()", at)
  if after then return object, after end
  while true do
    local start = text:match('^%s*"()', at) or error("a key is missing")
    local key, value, mark
    key, at = read_string(text, start)
    at = text:match("^%s*:()", at) or error("a colon is missing")
    value, at = read_value(text, at)
    object[key] = value
    table.insert(keys, key)
    mark, at = text:match("^%s*([,}])()", at)
    if not mark then error("an object does not end") end
    if mark == "}" then return object, at end
  end
end

function read_value(text, at)
  at = text:find("%S", at) or error("a value is missing")
  local first = text:sub(at, at)
  if first == '"' then return read_string(text, at + 1) end
  if first == "{" then return read_object(text, at + 1) end
  if first == "[" then return read_list(text, at + 1) end
  for word, value in pairs({ ["true"] = true, ["false"] = false, null = null }) do
    if text:sub(at, at + #word - 1) == word then return value, at + #word end
  end
  local number, after = text:match("^(-?%d+%.?%d*[eE]?[+-]?%d*)()", at)
  return tonumber(number) or error("no value"), after
end

-- The value of a JSON text, its nulls as `null`; nil if it is none.
local function json_decode(text)
  local fine, value = pcall(read_value, text, 1)
  if fine then return value end
end

-- JSON of a string, number, boolean, null, or table of those by name.
local function json_encode(value)
  local kind = type(value)
  if value == null then return "null" end
  if kind == "boolean" then return tostring(value) end
  if kind == "number" then
    local whole = value == math.floor(value) and math.abs(value) < 2 ^ 53
    return (string.format(whole and "%d" or "%.10g", value):gsub(",", ".")) -- some locales write a comma
  end
  if kind == "string" then
    local text = value:gsub('[%c"\\]', function(one) return string.format("\\u%04x", one:byte()) end)
    return '"' .. text .. '"'
  end
  local parts = {}
  for key, one in pairs(value) do
    table.insert(parts, json_encode(key) .. ":" .. json_encode(one))
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Addresses ------------------------------------------------------------------------------------------------------

-- What `http://HOST:PORT` says; or nil, and a sentence.
local function parse_address(text)
  local scheme, host, port = text:lower():match("^%s*(https?)://([%w%.%-]+):?(%d*)/?%s*$")
  if not scheme or (tonumber(port) or 1) > 65535 or port == "0" then
    return nil, "Write the server as http://127.0.0.1:8080: http, a name or an IPv4 address, and a port."
  end
  local base = scheme .. "://" .. host .. (port ~= "" and ":" .. port or "")
  return { base = base, tls = scheme == "https", host = host, port = tonumber(port) or 80 }
end

-- The four bytes of an IPv4 address, or of this machine's name for itself; nil for other names.
local function numbers_of(host)
  if host == "localhost" then host = "127.0.0.1" end
  local a, b, c, d = host:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if not a or math.max(a, b, c, d) > 255 then return nil end
  return { tonumber(a), tonumber(b), tonumber(c), tonumber(d) }
end

local function is_session(text)
  return #text <= 40 and text:match("^[a-z0-9][a-z0-9-]*$") ~= nil
end

-- Sockets --------------------------------------------------------------------------------------------------------
-- open(bytes, port), ready(socket, writing, milliseconds), failed(socket), send(socket, text), receive(socket: "" at
-- the end), close(socket), lookup(name). nil stands for any failure.

local function socket_address(bytes, port)
  local address = ffi.new("uint8_t[16]")
  if ffi.os == "OSX" or ffi.os == "BSD" then
    address[0], address[1] = 16, 2 -- length, AF_INET
  else
    address[0] = 2
  end
  address[2], address[3] = math.floor(port / 256), port % 256
  for index, byte in ipairs(bytes) do address[3 + index] = byte end
  return address
end

local function first_address(host)
  if host == nil or host.addresses[0] == nil then return nil end
  local bytes = host.addresses[0]
  return { bytes[0], bytes[1], bytes[2], bytes[3] }
end

local function posix_sockets()
  ffi.cdef([[
    struct sfx_poll { int fd; short events; short found; };
    struct sfx_host { char *name; char **aliases; int family; int length; uint8_t **addresses; };
    int socket(int, int, int);
    int fcntl(int, int, ...);
    int connect(int, const void *, unsigned int);
    int poll(struct sfx_poll *, unsigned long, int);
    int getsockopt(int, int, int, void *, unsigned int *);
    int setsockopt(int, int, int, const void *, unsigned int);
    intptr_t send(int, const char *, size_t, int);
    intptr_t recv(int, char *, size_t, int);
    int close(int);
    struct sfx_host *gethostbyname(const char *);
  ]])
  local C = ffi.C
  local linux = ffi.os == "Linux"
  local NONBLOCK, SOL_SOCKET, SO_ERROR = linux and 0x800 or 4, linux and 1 or 0xffff, linux and 4 or 0x1007
  -- A peer that is gone must not send us SIGPIPE, which would end OBS.
  local NOSIGNAL = linux and 0x4000 or ffi.os == "BSD" and 0x20000 or 0
  local buffer = ffi.new("char[16384]")
  return {
    open = function(bytes, port)
      local socket = C.socket(2, 1, 0)
      if socket < 0 then return nil end
      if ffi.os == "OSX" then C.setsockopt(socket, SOL_SOCKET, 0x1022, ffi.new("int[1]", 1), 4) end -- SO_NOSIGPIPE
      if C.fcntl(socket, 4, ffi.new("int", NONBLOCK)) < 0 then -- F_SETFL
        C.close(socket)
        return nil
      end
      C.connect(socket, socket_address(bytes, port), 16)
      return socket
    end,
    ready = function(socket, writing, milliseconds)
      local asked = ffi.new("struct sfx_poll[1]")
      asked[0].fd, asked[0].events = socket, writing and 4 or 1 -- POLLOUT, POLLIN
      return C.poll(asked, 1, milliseconds) > 0
    end,
    failed = function(socket)
      local fault, size = ffi.new("int[1]"), ffi.new("unsigned int[1]", 4)
      return C.getsockopt(socket, SOL_SOCKET, SO_ERROR, fault, size) ~= 0 or fault[0] ~= 0
    end,
    send = function(socket, text)
      local sent = tonumber(C.send(socket, text, #text, NOSIGNAL))
      return sent >= 0 and sent or nil
    end,
    receive = function(socket)
      local got = tonumber(C.recv(socket, buffer, 16384, 0))
      return got >= 0 and ffi.string(buffer, got) or nil
    end,
    close = function(socket) C.close(socket) end,
    lookup = function(name) return first_address(C.gethostbyname(name)) end,
  }
end

local function windows_sockets()
  ffi.cdef([[
    struct sfx_set { unsigned int count; uintptr_t sockets[64]; };
    struct sfx_time { long seconds; long microseconds; };
    struct sfx_host { char *name; char **aliases; short family; short length; uint8_t **addresses; };
    int __stdcall WSAStartup(unsigned short, void *);
    uintptr_t __stdcall socket(int, int, int);
    int __stdcall ioctlsocket(uintptr_t, long, unsigned long *);
    int __stdcall connect(uintptr_t, const void *, int);
    int __stdcall select(int, struct sfx_set *, struct sfx_set *, struct sfx_set *, const struct sfx_time *);
    int __stdcall getsockopt(uintptr_t, int, int, void *, int *);
    int __stdcall send(uintptr_t, const char *, int, int);
    int __stdcall recv(uintptr_t, char *, int, int);
    int __stdcall closesocket(uintptr_t);
    struct sfx_host * __stdcall gethostbyname(const char *);
  ]])
  local C = ffi.load("ws2_32")
  C.WSAStartup(0x202, ffi.new("uint8_t[1024]"))
  local buffer = ffi.new("char[16384]")
  local INVALID = ffi.cast("uintptr_t", -1)
  local FIONBIO = -2147195266
  return {
    open = function(bytes, port)
      local socket = C.socket(2, 1, 0)
      if socket == INVALID then return nil end
      if C.ioctlsocket(socket, FIONBIO, ffi.new("unsigned long[1]", 1)) ~= 0 then
        C.closesocket(socket)
        return nil
      end
      C.connect(socket, socket_address(bytes, port), 16)
      return socket
    end,
    ready = function(socket, writing, milliseconds)
      local asked, failed = ffi.new("struct sfx_set"), ffi.new("struct sfx_set")
      asked.count, asked.sockets[0] = 1, socket
      failed.count, failed.sockets[0] = 1, socket -- where Windows tells of a connection that was refused
      local pause = ffi.new("struct sfx_time[1]")
      pause[0].microseconds = milliseconds * 1000
      return C.select(0, not writing and asked or nil, writing and asked or nil, failed, pause) > 0
    end,
    failed = function(socket)
      local fault, size = ffi.new("int[1]"), ffi.new("int[1]", 4)
      return C.getsockopt(socket, 0xffff, 0x1007, fault, size) ~= 0 or fault[0] ~= 0
    end,
    send = function(socket, text)
      local sent = C.send(socket, text, #text, 0)
      return sent >= 0 and sent or nil
    end,
    receive = function(socket)
      local got = C.recv(socket, buffer, 16384, 0)
      return got >= 0 and ffi.string(buffer, got) or nil
    end,
    close = function(socket) C.closesocket(socket) end,
    lookup = function(name) return first_address(C.gethostbyname(name)) end,
  }
end

local sockets = has_ffi and (ffi.os == "Windows" and windows_sockets or posix_sockets)()

-- HTTP -----------------------------------------------------------------------------------------------------------

-- Begins a request. It goes on with each `advance`.
local function begin_request(where, token, method, path, body, seconds)
  local lines = {
    method .. " " .. path .. " HTTP/1.0", -- an answer ends with its connection, and comes in one piece
    "Host: " .. where.host .. ":" .. where.port,
    "Accept: application/json",
    "Connection: close",
  }
  if token ~= "" then table.insert(lines, "Authorization: Bearer " .. token) end
  if body then
    table.insert(lines, "Content-Type: application/json")
    table.insert(lines, "Content-Length: " .. #body)
  end
  return {
    socket = sockets.open(where.bytes, where.port),
    connected = false,
    unsent = table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""),
    got = {},
    size = 0,
    deadline = now() + seconds,
  }
end

local function end_request(request)
  if request.socket then sockets.close(request.socket) end
  request.socket = nil
end

-- Status and body of an answer that has come whole; nil while more is to come, or 0 if it is none.
local function parse_answer(text, ended)
  local head, start = text:find("\r\n\r\n", 1, true)
  local status = head and text:match("^HTTP/1%.%d (%d%d%d)")
  if not status then return ended and 0 or nil end
  local length = tonumber(text:sub(1, head):lower():match("\ncontent%-length:%s*(%d+)"))
  local body = text:sub(start + 1)
  if length and #body < length then return ended and 0 or nil end
  if not length and not ended then return nil end
  return tonumber(status), body
end

-- Does what can be done without waiting for more than so long. Returns the status (0: nobody answers) and the body
-- when it is over, nil before.
local function advance(request, milliseconds)
  if not request.socket or now() > request.deadline then return 0 end
  while sockets.ready(request.socket, request.unsent ~= "", milliseconds) do
    if not request.connected then
      if sockets.failed(request.socket) then return 0 end
      request.connected = true
    end
    if request.unsent ~= "" then
      local sent = sockets.send(request.socket, request.unsent)
      if not sent then return 0 end
      request.unsent = request.unsent:sub(sent + 1)
    else
      local part = sockets.receive(request.socket)
      if not part then return 0 end
      table.insert(request.got, part)
      request.size = request.size + #part
      if request.size > LARGEST_ANSWER then return 0 end
      local status, body = parse_answer(table.concat(request.got), part == "")
      if status then return status, body end
    end
    milliseconds = 0
  end
end

-- The server -----------------------------------------------------------------------------------------------------

local server = nil -- what parse_address says, and `bytes`; nil if none can be asked
local token, session_id = "", "live"
local state_text = ""
local problem = "" -- what the server said to the last change, for the dialogue to show once
local session = nil -- as GET /sessions/{id} tells
local filters = nil -- names, as GET /filters lists them
local schemas = {} -- by name of the filter
local away = nil -- whether nobody answered last time; nil before the first time
local waiting, flying = {}, nil -- calls
local next_poll = 0

local function say(text)
  if text ~= state_text then print(text) end
  state_text = text
end

-- Queues a call. `done(status, data)`: status 0 if nobody answers.
local function call(method, path, body, done, seconds)
  table.insert(waiting, { method = method, path = path, body = body, done = done, seconds = seconds or CALL_SECONDS })
end

local function escaped(name)
  return (name:gsub("[^%w%-%._]", function(one) return string.format("%%%02X", one:byte()) end))
end

local function take_schema(entry)
  schemas[entry.name] = entry.schema
end

local refresh_sources -- below

local function is_session_info(data)
  return type(data) == "table" and data.id and data.state and data.size and data.filter and data.publisher
end

local function describe_session()
  local parts = { "session " .. session.id .. " is " .. session.state }
  if session.size ~= null then table.insert(parts, session.size[1] .. "×" .. session.size[2]) end
  if session.publisher ~= null then table.insert(parts, "published by " .. session.publisher.kind) end
  return "Connected: " .. table.concat(parts, ", ") .. "."
end

local function ask_filters()
  if not filters then
    filters = {}
    call("GET", "/filters", nil, function(status, data)
      if status ~= 200 or type(data) ~= "table" or type(data.filters) ~= "table" then
        filters = nil -- asked for again
        return
      end
      for _, entry in ipairs(data.filters) do
        if entry.lacking == "" then
          table.insert(filters, entry.name)
          take_schema(entry)
        end
      end
    end, LONG_CALL_SECONDS)
  end
  local name = session.filter ~= null and session.filter.name
  if name and schemas[name] == nil and name:find("+", 1, true) then
    schemas[name] = false -- asked for
    call("GET", "/filters/" .. escaped(name), nil, function(status, data)
      schemas[name] = nil
      if status == 200 and type(data) == "table" and data.name then take_schema(data) end
    end, LONG_CALL_SECONDS)
  end
end

local function session_came(status, data)
  next_poll = now() + POLL_SECONDS
  local was_away = away
  away = status ~= 200 or not is_session_info(data)
  if not away then
    session = data
    say(describe_session())
    ask_filters()
    if was_away then refresh_sources() end
    return
  end
  session = nil
  if status == 0 then
    filters, schemas = nil, {} -- another version may come back
    say("Nobody answers at " .. server.base .. "; start it with: streamfx serve")
  elseif status == 401 then
    next_poll = now() + REFUSED_SECONDS
    say(token == "" and "The server wants a token; write it above and press Connect."
      or "The server does not take this token; write the right one above and press Connect.")
  elseif status == 404 then
    say("The server has no session " .. session_id .. ".")
  else
    if status < 500 then next_poll = now() + REFUSED_SECONDS end
    say(server.base .. " answers, but not as a streamfx server does (" .. status .. ").")
  end
end

-- Goes on with what is to be asked, waiting for so long at most.
local function pump(milliseconds)
  if not server then return end
  if not flying and #waiting == 0 and now() >= next_poll then
    next_poll = math.huge -- set by its answer
    call("GET", "/sessions/" .. session_id, nil, session_came)
  end
  if not flying and #waiting > 0 then
    flying = table.remove(waiting, 1)
    flying.request = begin_request(server, token, flying.method, flying.path, flying.body, flying.seconds)
  end
  if not flying then return end
  local status, body = advance(flying.request, milliseconds)
  if not status then return end
  local done = flying.done
  end_request(flying.request)
  flying = nil
  done(status, body and body ~= "" and json_decode(body) or nil)
end

-- Waits until nothing is asked for any more; 0.2 s at most.
local function pump_for_a_moment()
  local stop = now() + BUTTON_SECONDS
  while server and now() < stop and (flying or #waiting > 0 or now() >= next_poll) do pump(10) end
end

local function forget()
  if flying then end_request(flying.request) end
  waiting, flying, next_poll = {}, nil, 0
  session, filters, schemas = nil, nil, {}
end

-- Takes server, token and session from the dialogue. A name is looked up by the system, which may take its time, so
-- only where `may_look_up`; what it found is kept in the settings, for when OBS starts again.
local function connect(settings, may_look_up)
  forget()
  server = nil
  token = obs.obs_data_get_string(settings, "token"):gsub("%s", "")
  session_id = obs.obs_data_get_string(settings, "session"):match("^%s*(.-)%s*$")
  local address, wrong = parse_address(obs.obs_data_get_string(settings, "server"))
  if not address then return say(wrong) end
  if not is_session(session_id) then return say("A session's name has a-z, 0-9 and - in it.") end
  if token:find("[^!-~]") then return say("A token has no space and no letter that is not ASCII in it.") end
  if not sockets then return say("This OBS has no FFI for scripts: it can add the source, but not ask the server.") end
  if address.tls then
    return say("Sources can be added. Scripts cannot speak https: change the filter on the server's page.")
  end
  address.bytes = numbers_of(address.host)
  if not address.bytes then
    local name, found = obs.obs_data_get_string(settings, "looked_up"):match("^(%S+) (%S+)$")
    if may_look_up then
      local bytes = sockets.lookup(address.host)
      name, found = address.host, bytes and table.concat(bytes, ".")
      obs.obs_data_set_string(settings, "looked_up", found and name .. " " .. found or "")
    end
    address.bytes = name == address.host and found and numbers_of(found) or nil
    if not address.bytes then
      return say("The name " .. address.host .. " is not known here; press Connect, or write the IPv4 address.")
    end
  end
  server = address
  say("Asking " .. server.base .. " …")
end

-- The source -----------------------------------------------------------------------------------------------------

local function has_browser()
  return obs.obs_source_get_display_name("browser_source") ~= nil
end

local function canvas_size()
  local info = obs.obs_video_info()
  obs.obs_get_video_info(info)
  return info.base_width, info.base_height
end

local function page_address(base)
  return base .. "/view/" .. session_id
end

local function playlist_address(base)
  return base .. "/sessions/" .. session_id .. "/hls/index.m3u8"
end

-- Kind and settings of the source. Release the settings.
local function wanted_source(base, sound)
  local wanted = obs.obs_data_create()
  if not has_browser() then
    obs.obs_data_set_bool(wanted, "is_local_file", false)
    obs.obs_data_set_string(wanted, "input", playlist_address(base))
    obs.obs_data_set_string(wanted, "input_format", "hls")
    obs.obs_data_set_int(wanted, "reconnect_delay_sec", 2)
    obs.obs_data_set_bool(wanted, "clear_on_media_end", false)
    local quoted = token:gsub("'", "'\\''") -- as FFmpeg reads it
    local header = token ~= "" and "headers='Authorization: Bearer " .. quoted .. "'" or ""
    obs.obs_data_set_string(wanted, "ffmpeg_options", header)
    return "ffmpeg_source", wanted
  end
  local width, height = canvas_size()
  if session and session.size ~= null then width, height = session.size[1], session.size[2] end
  local address = page_address(base) .. (sound and "?audio=1" or "") .. (token ~= "" and "#token=" .. escaped(token) or "")
  obs.obs_data_set_string(wanted, "url", address)
  obs.obs_data_set_bool(wanted, "is_local_file", false)
  obs.obs_data_set_int(wanted, "width", width)
  obs.obs_data_set_int(wanted, "height", height)
  obs.obs_data_set_bool(wanted, "reroute_audio", sound)
  return "browser_source", wanted
end

-- Puts a scene's item where it was asked for: "canvas", "corner" or "plain" (as large as it is).
local function place(item, placement)
  local width, height = canvas_size()
  local share = placement == "corner" and 1 / 3 or 1
  local position, bounds = obs.vec2(), obs.vec2()
  bounds.x, bounds.y = width * share, height * share
  position.x, position.y = width - bounds.x, height - bounds.y
  obs.obs_sceneitem_set_alignment(item, 5) -- left and top
  obs.obs_sceneitem_set_pos(item, position)
  obs.obs_sceneitem_set_bounds_alignment(item, 0)
  obs.obs_sceneitem_set_bounds(item, bounds)
  obs.obs_sceneitem_set_bounds_type(item, placement == "plain" and obs.OBS_BOUNDS_NONE or obs.OBS_BOUNDS_SCALE_INNER)
end

-- Adds the source, or brings the one that is there up to date. `again`: whether one that is in the scene already is
-- placed anew. Returns a sentence.
local function add_source(settings, again)
  local address = parse_address(obs.obs_data_get_string(settings, "server"))
  if not address or not is_session(session_id) then return "Write server and session first." end
  local name = obs.obs_data_get_string(settings, "name")
  local scene_name = obs.obs_data_get_string(settings, "scene")
  local scene_source = scene_name ~= "" and obs.obs_get_source_by_name(scene_name)
    or scene_name == "" and obs.obs_frontend_get_current_scene()
  local scene = scene_source and obs.obs_scene_from_source(scene_source)
  if not scene then
    if scene_source then obs.obs_source_release(scene_source) end
    return "There is no scene " .. scene_name .. " any more; choose another."
  end
  local said
  local sound = obs.obs_data_get_bool(settings, "sound")
  local kind, wanted = wanted_source(address.base, sound)
  local source = obs.obs_get_source_by_name(name)
  if source and obs.obs_source_get_unversioned_id(source) ~= kind then
    said = "Another source is called " .. name .. "; choose another name."
  else
    if source then
      obs.obs_source_update(source, wanted)
    else
      source = obs.obs_source_create(kind, name, wanted, nil)
    end
    obs.obs_source_set_muted(source, not sound)
    local item = obs.obs_scene_find_source(scene, name)
    if again or not item then
      place(item or obs.obs_scene_add(scene, source), obs.obs_data_get_string(settings, "placement"))
    end
    said = name .. " is in the scene " .. obs.obs_source_get_name(scene_source) .. "."
  end
  if source then obs.obs_source_release(source) end
  obs.obs_source_release(scene_source)
  obs.obs_data_release(wanted)
  print(said)
  return said
end

local function refresh_source(source)
  if obs.obs_source_get_unversioned_id(source) == "ffmpeg_source" then
    obs.obs_source_media_restart(source)
    return
  end
  local properties = obs.obs_source_properties(source)
  local button = obs.obs_properties_get(properties, "refreshnocache")
  if button then obs.obs_property_button_clicked(button, source) end
  obs.obs_properties_destroy(properties)
end

-- Loads the sources that show our session anew, whoever added them: the server was away, and is back.
function refresh_sources()
  local keys = { browser_source = "url", ffmpeg_source = "input" }
  local ours = { page_address(server.base), playlist_address(server.base) }
  local all = obs.obs_enum_sources()
  for _, source in ipairs(all or {}) do
    local key = keys[obs.obs_source_get_unversioned_id(source)]
    if key then
      local settings = obs.obs_source_get_settings(source)
      local address = obs.obs_data_get_string(settings, key):match("^[^?#]*")
      obs.obs_data_release(settings)
      if address == ours[1] or address == ours[2] then
        print("refreshing " .. obs.obs_source_get_name(source))
        refresh_source(source)
      end
    end
  end
  obs.source_list_release(all)
end

-- The dialogue ---------------------------------------------------------------------------------------------------

local GROUP = "filter_settings"
local own_settings = nil -- OBS's, of this script
local shown = { filter = nil, rows = {} } -- what the dialogue was given to show; only what differs is sent
local changes, changes_due = {}, 0
local function key_of(filter, name)
  return filter .. ":" .. name
end

-- Follows $ref and takes the null out of values that may be left out.
local function resolved(property, schema)
  local merged = {}
  local function take(one)
    local target = one["$ref"] and one["$ref"]:match("^#/%$defs/(.+)$")
    for key, value in pairs(target and schema["$defs"][target] or {}) do merged[key] = value end
    for key, value in pairs(one) do merged[key] = value end
  end
  for _, option in ipairs(property.anyOf or property.allOf or {}) do
    if option.type == "null" then merged.nullable = true else take(option) end
  end
  take(property)
  return merged
end

local function bounds_of(property, step)
  local low = property.minimum or (property.exclusiveMinimum and property.exclusiveMinimum + step)
  local high = property.maximum or (property.exclusiveMaximum and property.exclusiveMaximum - step)
  return low, high
end

-- How a parameter is shown: `kind` (choice, bool, int, float, suggested, text, auto), bounds and step of a number,
-- values of a choice. Nil for what is read when a filter is set up, which is not for us.
local function row_of(name, raw, schema)
  local property = resolved(raw, schema)
  if property.setup then return nil end
  local row = { name = name, title = property.title or name, help = property.description or "" }
  row.initial = property.default
  local number = property.type == "integer" or property.type == "number"
  if property.enum then
    row.kind, row.values = "choice", property.enum
  elseif property.type == "boolean" then
    row.kind = "bool"
  elseif number and property.nullable then
    row.kind = "auto"
    row.help = row.help .. " (a number; empty: chosen by the filter)"
  elseif number then
    row.kind = property.type == "integer" and "int" or "float"
    local low, high = bounds_of(property, 0)
    local span = low and high and high - low
    local fine = span and 10 ^ math.floor(math.log10(span / 100)) or 0.01
    row.step = property["x-step"] or (row.kind == "int" and 1) or fine
    low, high = bounds_of(property, row.step) -- a bound that is excluded is one step away
    row.low, row.high = low or -2147483647, high or 2147483647
    row.slider = span ~= nil and span / row.step <= 10000
  elseif property.type == "string" then
    row.kind, row.values = property.examples and "suggested" or "text", property.examples
  else
    return nil
  end
  return row
end

local function rows_of(filter)
  local rows, schema = {}, schemas[filter]
  if not schema or not schema.properties then return rows end
  for _, name in ipairs(key_order[schema.properties]) do
    local row = row_of(name, schema.properties[name], schema)
    if row then table.insert(rows, row) end
  end
  return rows
end

local readers = {
  bool = obs.obs_data_get_bool,
  int = obs.obs_data_get_int,
  float = obs.obs_data_get_double,
  text = obs.obs_data_get_string,
  suggested = obs.obs_data_get_string,
  choice = obs.obs_data_get_string,
  auto = obs.obs_data_get_string,
}
local writers = {
  bool = { obs.obs_data_set_bool, obs.obs_data_set_default_bool },
  int = { obs.obs_data_set_int, obs.obs_data_set_default_int },
  float = { obs.obs_data_set_double, obs.obs_data_set_default_double },
}
local write_text = { obs.obs_data_set_string, obs.obs_data_set_default_string }
local is_typed = { text = true, suggested = true, auto = true }

-- What goes to the server for what stands in the dialogue.
local function value_of(row, read)
  if row.kind == "auto" then return tonumber(read) or null end
  if row.kind ~= "choice" then return read end
  for _, value in ipairs(row.values) do
    if tostring(value) == read then return value end
  end
end

local function add_row(properties, key, row)
  local made
  if row.kind == "bool" then
    made = obs.obs_properties_add_bool(properties, key, row.title)
  elseif row.kind == "int" then
    local add = row.slider and obs.obs_properties_add_int_slider or obs.obs_properties_add_int
    made = add(properties, key, row.title, row.low, row.high, row.step)
  elseif row.kind == "float" then
    local add = row.slider and obs.obs_properties_add_float_slider or obs.obs_properties_add_float
    made = add(properties, key, row.title, row.low, row.high, row.step)
  elseif row.values then
    local type = row.kind == "choice" and obs.OBS_COMBO_TYPE_LIST or obs.OBS_COMBO_TYPE_EDITABLE
    made = obs.obs_properties_add_list(properties, key, row.title, type, obs.OBS_COMBO_FORMAT_STRING)
    for _, value in ipairs(row.values) do obs.obs_property_list_add_string(made, tostring(value), tostring(value)) end
  else
    made = obs.obs_properties_add_text(properties, key, row.title, obs.OBS_TEXT_DEFAULT)
  end
  obs.obs_property_set_long_description(made, row.help)
end

-- Puts a value into the dialogue's settings; `place`: 1 for the value, 2 for the default.
local function write_row(settings, key, row, value, place)
  local missing = value == nil or value == null
  if not writers[row.kind] then
    write_text[place](settings, key, missing and "" or tostring(value))
  elseif not missing then
    writers[row.kind][place](settings, key, value)
  end
end

-- The controls of a filter, with the values the server has, or else those it begins with.
local function add_filter_rows(properties, settings, filter)
  shown = { filter = filter, rows = {} }
  changes = {}
  local live = session and session.filter ~= null and session.filter.name == filter and session.filter.params or {}
  local group = obs.obs_properties_create()
  local rows = rows_of(filter)
  for _, row in ipairs(rows) do
    local key = key_of(filter, row.name)
    local value = live[row.name]
    if value == nil then value = row.initial end
    write_row(settings, key, row, value, 1)
    write_row(settings, key, row, row.initial, 2) -- for the dialogue's button Defaults
    row.key, row.value = key, readers[row.kind](settings, key)
    shown.rows[row.name] = row
    add_row(group, key, row)
  end
  if #rows == 0 then
    obs.obs_properties_destroy(group)
    return
  end
  obs.obs_properties_add_group(properties, GROUP, "Settings of " .. filter, obs.OBS_GROUP_NORMAL, group)
end

-- Keeps what the server said to a change, if it did not take it.
local function note(status, data)
  if status == 200 then return end
  local detail = type(data) == "table" and data.detail
  problem = status == 0 and "The server did not answer in time." or detail or "The server answered " .. status .. "."
  print(problem)
end

local function choose_filter(name)
  local body = '{"name":' .. (name ~= "" and json_encode(name) or "null") .. "}"
  call("PUT", "/sessions/" .. session_id .. "/filter", body, function(status, data)
    note(status, data)
    next_poll = 0
  end, LONG_CALL_SECONDS)
end

local function send_changes()
  local sent = changes
  changes = {}
  call("PATCH", "/sessions/" .. session_id .. "/params", json_encode(sent), note)
end

local function fill_filters(list)
  obs.obs_property_list_clear(list)
  obs.obs_property_list_add_string(list, "none: the picture as it comes", "")
  local current = session and session.filter ~= null and session.filter.name
  local listed = current == false or current == nil
  for _, name in ipairs(filters or {}) do
    obs.obs_property_list_add_string(list, name, name)
    listed = listed or name == current
  end
  if not listed then obs.obs_property_list_add_string(list, current, current) end
  obs.obs_property_set_enabled(list, session ~= nil)
end

local function show_state(settings)
  obs.obs_data_set_string(settings, "state", problem ~= "" and problem or state_text)
  problem = ""
end

-- Brings the lower part of the dialogue to what is known now.
local function fill(properties, settings)
  local list = obs.obs_properties_get(properties, "filter")
  fill_filters(list)
  local filter = session and session.filter ~= null and session.filter.name or ""
  obs.obs_data_set_string(settings, "filter", filter)
  show_state(settings)
  obs.obs_properties_remove_by_name(properties, GROUP)
  add_filter_rows(properties, settings, filter)
end

local function on_connect(properties)
  connect(own_settings, true)
  pump_for_a_moment()
  fill(properties, own_settings)
  return true
end

local function on_add(properties)
  on_connect(properties)
  obs.obs_data_set_string(own_settings, "state", add_source(own_settings, true))
  return true
end

local function on_filter(properties, _, settings)
  local chosen = obs.obs_data_get_string(settings, "filter")
  if not session or chosen == shown.filter then return false end
  choose_filter(chosen)
  pump_for_a_moment()
  show_state(settings)
  obs.obs_properties_remove_by_name(properties, GROUP)
  add_filter_rows(properties, settings, chosen)
  return true
end

-- What OBS calls -------------------------------------------------------------------------------------------------

function script_description()
  local text = "<b>streamfx</b><br>Shows a session of a streamfx server as a source, and has its filter's settings "
    .. "here. Connect applies server, token and session, and brings all below up to date."
  if not has_browser() then
    text = text .. "<br><br>This OBS has no Browser source, so a Media source is added: it is some seconds behind, and "
      .. "OBS writes the token into its log. Where OBS can be had with the Browser source, take that."
  end
  return text
end

function script_defaults(settings)
  obs.obs_data_set_default_string(settings, "server", "http://127.0.0.1:8080")
  obs.obs_data_set_default_string(settings, "session", "live")
  obs.obs_data_set_default_string(settings, "name", "streamfx")
  obs.obs_data_set_default_string(settings, "placement", "canvas")
end

function script_properties()
  local properties = obs.obs_properties_create()
  obs.obs_properties_add_text(properties, "server", "Server", obs.OBS_TEXT_DEFAULT)
  local secret = obs.obs_properties_add_text(properties, "token", "Token", obs.OBS_TEXT_PASSWORD)
  obs.obs_property_set_long_description(secret, "None is needed on this machine. OBS keeps it in its scene collection.")
  obs.obs_properties_add_text(properties, "session", "Session", obs.OBS_TEXT_DEFAULT)
  obs.obs_properties_add_button(properties, "connect", "Connect", on_connect)
  local state = obs.obs_properties_add_text(properties, "state", "State", obs.OBS_TEXT_INFO or obs.OBS_TEXT_DEFAULT)
  obs.obs_property_set_enabled(state, false)

  obs.obs_properties_add_text(properties, "name", "Name of the source", obs.OBS_TEXT_DEFAULT)
  local list, text = obs.OBS_COMBO_TYPE_LIST, obs.OBS_COMBO_FORMAT_STRING
  local scenes = obs.obs_properties_add_list(properties, "scene", "Scene", list, text)
  obs.obs_property_list_add_string(scenes, "the current one", "")
  local all = obs.obs_frontend_get_scenes()
  for _, scene in ipairs(all or {}) do
    local name = obs.obs_source_get_name(scene)
    obs.obs_property_list_add_string(scenes, name, name)
  end
  obs.source_list_release(all)
  local places = obs.obs_properties_add_list(properties, "placement", "Placement", list, text)
  obs.obs_property_list_add_string(places, "fits the canvas", "canvas")
  obs.obs_property_list_add_string(places, "in the lower right corner", "corner")
  obs.obs_property_list_add_string(places, "as large as it is", "plain")
  obs.obs_properties_add_bool(properties, "sound", "With the session's sound")
  obs.obs_properties_add_button(properties, "add", "Add to the scene", on_add)
  obs.obs_properties_add_bool(properties, "add_on_load", "Add it when OBS starts")

  local names = obs.obs_properties_add_list(properties, "filter", "Filter", list, text)
  obs.obs_property_set_modified_callback(names, on_filter)
  fill(properties, own_settings)
  return properties
end

-- Called with every change in the dialogue; sends what differs from what the dialogue was given.
function script_update(settings)
  for name, row in pairs(shown.rows) do
    local read = readers[row.kind](settings, row.key)
    if read ~= row.value then
      row.value = read
      changes[name] = value_of(row, read)
      changes_due = now() + (is_typed[row.kind] and TYPING_SECONDS or 0)
    end
  end
end

local function tick()
  if next(changes) ~= nil and now() >= changes_due and not flying and #waiting == 0 then send_changes() end
  pump(0)
end

local function on_event(event)
  if event == obs.OBS_FRONTEND_EVENT_FINISHED_LOADING and obs.obs_data_get_bool(own_settings, "add_on_load") then
    pump_for_a_moment()
    add_source(own_settings, false)
  end
end

function script_load(settings)
  own_settings = settings
  connect(settings, false)
  obs.obs_frontend_add_event_callback(on_event)
  obs.timer_add(tick, 50)
end

function script_unload()
  forget()
  server = nil
end

-- For tests without OBS.
streamfx = {
  json_decode = json_decode,
  json_encode = json_encode,
  null = null,
  parse_address = parse_address,
  parse_answer = parse_answer,
  numbers_of = numbers_of,
  row_of = row_of,
}
