-- Works the dialogue of streamfx.lua inside OBS as a user would, from OBS's own thread, and prints what it shows.

local obs = obslua
dofile(os.getenv("STREAMFX_LUA"))
local load_script = script_load

local function press(properties, name)
  obs.obs_property_button_clicked(obs.obs_properties_get(properties, name), nil)
end

local function shown(properties, settings, filter, name)
  local group = obs.obs_property_group_content(obs.obs_properties_get(properties, "filter_settings"))
  local row = obs.obs_properties_get(group, filter .. ":" .. name)
  return obs.obs_property_description(row), obs.obs_data_get_double(settings, filter .. ":" .. name)
end

local function drive(settings)
  local properties = script_properties()
  for _ = 1, 50 do -- a busy machine may answer later than a button waits
    press(properties, "connect")
    if obs.obs_properties_get(properties, "filter_settings") then break end
  end
  print("DIALOGUE state: " .. obs.obs_data_get_string(settings, "state"))
  print("DIALOGUE filter: " .. obs.obs_data_get_string(settings, "filter"))
  print("DIALOGUE row: " .. table.concat({ shown(properties, settings, "pixelate", "cell") }, " "))
  for _ = 1, 50 do
    press(properties, "add")
    if obs.obs_properties_get(properties, "filter_settings") then break end
  end
  print("DIALOGUE state: " .. obs.obs_data_get_string(settings, "state"))

  obs.obs_data_set_string(settings, "filter", "toon")
  obs.obs_property_modified(obs.obs_properties_get(properties, "filter"), settings)
  print("DIALOGUE row: " .. table.concat({ shown(properties, settings, "toon", "ink") }, " "))
  obs.obs_data_set_double(settings, "toon:ink", 0.25)
  obs.obs_data_set_int(settings, "toon:levels", 5)
  script_update(settings)
  obs.obs_properties_destroy(properties)
end

function script_load(settings)
  load_script(settings)
  obs.obs_frontend_add_event_callback(function(event)
    if event == obs.OBS_FRONTEND_EVENT_FINISHED_LOADING then drive(settings) end
  end)
end
